#!/bin/sh
# What `make test-otb` needs: Orfeo ToolBox of Debian 12 and, built once into the cache, its Python bindings.
# Installs packages as root or with sudo. Debian does not package the bindings, but its source package holds them: about
# 700 MB to download, of which a few files stay. Prints nothing but errors and what takes long.
set -eu

PYTHON=${OTB_PYTHON:-/usr/bin/python3}
CACHE=${XDG_CACHE_HOME:-$HOME/.cache}/s2sr/otb
NUMPY=${OTB_NUMPY:-numpy>=1.26,<2}
KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
SWIG_SOURCE=Modules/Wrappers/SWIG/src

fail() { echo "s2sr: $*" >&2; exit 1; }
by_hand="install Orfeo ToolBox 8 or 9 with its Python bindings (https://www.orfeo-toolbox.org/download), pip install pyotb in a Python with NumPy < 2, and run its python -m pytest -m otb tests/otb tests/core."
codename=$(. /etc/os-release 2>/dev/null && echo "${VERSION_CODENAME:-}") || true
[ "$codename" = bookworm ] || fail "this is not Debian 12, so nothing was installed; $by_hand"

sudo=""
if [ "$(id -u)" -ne 0 ]; then sudo="sudo"; fi
get="env DEBIAN_FRONTEND=noninteractive apt-get -q -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300"
installed() { dpkg-query -W -f '${Status} ' "$@" 2>/dev/null | grep -qv 'not-installed\|deinstall'; }

packages="otb-bin libotb-dev swig g++ python3-dev python3-venv xz-utils"
missing=""
for package in $packages; do installed "$package" || missing="$missing $package"; done
if [ -n "$missing" ]; then
  [ -z "$sudo" ] || command -v sudo >/dev/null || fail "installing$missing needs root or sudo; $by_hand"
  echo "s2sr: installing Orfeo ToolBox (some minutes, once) ..."
  # QGIS of the backports brings their libwebp, and libotb-dev wants the headers of the same version.
  webp=$(dpkg-query -W -f '${Version}' libwebp7 2>/dev/null) && missing="$missing libwebp-dev=$webp"
  # shellcheck disable=SC2086 # the lists are meant to be split
  ($sudo $get update && $sudo $get install -y --no-install-recommends $missing) >/dev/null
fi

version=$(dpkg-query -W -f '${Version}' libotb-dev)
tag=$("$PYTHON" -c 'import sys; print("py%d.%d" % sys.version_info[:2])')
built=$CACHE/$version-$tag
if [ ! -e "$built/_otbApplication.so" ]; then
  # Kept until the build has succeeded, so that a second try does not download again.
  sources=$CACHE/source-package
  mkdir -p "$sources/lists/partial"
  work=$(mktemp -d "$CACHE/build.XXXXXX")
  trap 'rm -rf "$work"' EXIT INT TERM
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Codename: bookworm' | sort -u | head -n 1)
  [ -n "$mirror" ] || fail "no Debian mirror is configured on this machine; $by_hand"
  echo "s2sr: downloading the source package of Orfeo ToolBox (700 MB, once) ..."
  # Lists of our own: the machine's package sources stay as they are.
  echo "deb-src [signed-by=$KEYRING] $mirror bookworm main" > "$sources/sources.list"
  own="-o Dir::Etc::SourceList=$sources/sources.list -o Dir::Etc::SourceParts=- -o Dir::State::Lists=$sources/lists -o APT::Sandbox::User=$(id -un)"
  # shellcheck disable=SC2086
  (cd "$sources" && $get $own update && $get $own source --download-only "otb=$version") >/dev/null
  echo "s2sr: building the Python bindings of Orfeo ToolBox (some minutes, once) ..."
  tar -C "$work" -xf "$sources"/otb_*.orig.tar.* "$SWIG_SOURCE"
  "$PYTHON" -m venv "$work/venv"
  "$work/venv/bin/python" -m pip install -q --disable-pip-version-check "$NUMPY"
  source=$work/$SWIG_SOURCE
  mkdir "$work/out"
  otb=$(ls -d /usr/include/OTB-*) itk=$(ls -d /usr/include/ITK-*) release=${otb##*-}
  # -flatstaticmethod: SWIG 4.1 and later leave out the flat names that OTB 8.1's own wrapper calls.
  swig -python -c++ -flatstaticmethod -DOTB_SWIGNUMPY=1 -I"$source" -I"$source/python" -I"$otb" -I"$itk" \
    -outdir "$work/out" -o "$source/python/wrap.cxx" "$source/otbApplication.i"
  headers=$("$work/venv/bin/python" -c 'import numpy, sysconfig; print("-I" + sysconfig.get_paths()["include"], "-I" + numpy.get_include())')
  # shellcheck disable=SC2086
  (cd "$source/python" && g++ -std=c++14 -O1 -w -fPIC -shared -o "$work/out/_otbApplication.so" \
    wrap.cxx itkPyCommand.cxx otbPythonLogOutput.cxx otbProgressReporterManager.cxx \
    -I. -I.. -I"$otb" -I"$itk" -I/usr/include/gdal $headers "-lOTBApplicationEngine-$release" "-lOTBCommon-$release")
  rm -rf "$built"
  mv "$work/out" "$built"
  rm -rf "$sources"
fi

# What a shell sources before it runs Python.
applications=$(dirname "$(find /usr/lib -name otbapp_Superimpose.so | head -n 1)")
cat > "$CACHE/env.sh" <<ENV
export OTB_APPLICATION_PATH="$applications"
export PYTHONPATH="$built\${PYTHONPATH:+:\$PYTHONPATH}"
ENV
