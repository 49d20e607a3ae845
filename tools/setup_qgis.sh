#!/bin/sh
# What the system must give before `make` can do the rest: QGIS with qgis_process, its Python bindings, and venv.
# Debian 12: installs what is missing (QGIS from bookworm-backports), as root or with sudo. Elsewhere: says what to do.
set -eu

PYTHON=${PYTHON:-python3}
QGIS_PYTHON=${QGIS_PYTHON:-/usr/bin/python3}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
BACKPORTS=/etc/apt/sources.list.d/s2sr-bookworm-backports.list

has_qgis() { command -v qgis_process && "$QGIS_PYTHON" -c 'import qgis.core'; }
has_venv() { "$1" -c 'import ensurepip, venv'; }
complete() { has_qgis && has_venv "$QGIS_PYTHON" && has_venv "$PYTHON"; }
fail() { echo "s2sr: $*" >&2; exit 1; }

if complete >/dev/null 2>&1; then exit 0; fi

by_hand="install QGIS 3.22 or newer with its Python bindings and qgis_process (https://qgis.org/download), and Python >= 3.10 with venv, then run make again."
codename=$(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}") || true
if [ "$codename" != bookworm ] || ! command -v apt-get >/dev/null; then
  fail "this is not Debian 12, so nothing was installed; $by_hand"
fi
if [ "$(id -u)" -eq 0 ]; then sudo=""
elif command -v sudo >/dev/null; then sudo="sudo"
else fail "installing needs root or sudo; $by_hand"; fi
apt() { $sudo env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 "$@"; }
# URIs of the package lists that this machine already uses, one a line
mirrors() { apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: '"$1" "Codename: $2" | sort -u; }

echo "s2sr: installing what the system lacks (some minutes, once) ..."
apt update >/dev/null
packages="python3 python3-venv python3-pip"
suite=bookworm
if ! has_qgis >/dev/null 2>&1; then
  packages="$packages qgis python3-qgis qgis-providers"
  if [ -z "$(mirrors 'Debian Backports' bookworm-backports)" ]; then
    mirror=$(mirrors Debian bookworm | head -n 1)
    [ -n "$mirror" ] || fail "no Debian mirror is configured on this machine; $by_hand"
    signed=""
    if [ -f "$KEYRING" ]; then signed="[signed-by=$KEYRING] "; fi
    echo "deb $signed$mirror bookworm-backports main" | $sudo tee "$BACKPORTS" >/dev/null
    apt update >/dev/null
  fi
  suite=bookworm-backports
fi
# shellcheck disable=SC2086 # the list is meant to be split
apt install -y --no-install-recommends -t "$suite" $packages >/dev/null
complete >/dev/null 2>&1 || fail "the packages were installed, but QGIS or venv still does not answer; $by_hand"
