"""Speaks the worker's protocol and behaves as the variable FAKE_DOES says."""

import json
import os
import signal
import subprocess
import sys
import time


def say(event, **values):
    print(json.dumps({"event": event, **values}), flush=True)


def main():
    does = os.environ.get("FAKE_DOES", "ok")
    line = sys.stdin.readline()
    with open(os.environ["FAKE_JOB"], "a") as stream:
        stream.write(line)
    say("started", protocol=2 if does == "other protocol" else 1, python="3.11.2")
    if does == "ok":
        say("progress", percent=40, text="tile 1 of 2")
        say("log", level="info", text="some information")
        say("log", level="warning", text="some warning")
        say("metric", epoch=1, loss=0.123456789)
        say("artifact", name="output", path="/a/b.tif")
        print("noise on standard output", flush=True)
        print('{"event": "unheard of"}', flush=True)
        print('["no event"]', flush=True)
        say("result", outputs=json.loads(os.environ["FAKE_OUTPUTS"]))
    elif does == "error":
        say("error", kind="input", message="The scene is upside down.", hint="Turn it.")
        sys.exit(1)
    elif does == "crash":
        job = json.loads(line)
        if job.get("output"):
            folder, name = os.path.split(job["output"])
            os.mkdir(os.path.join(folder, "." + name + "-0123abcd.part"))
            open(os.path.join(folder, "." + name + "-0123abcd.part", "lock"), "w").close()
        print("native code says goodbye", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGSEGV)
    elif does == "bug":
        raise RuntimeError("a bug")
    elif does == "no result":
        sys.exit(0)
    elif does == "obedient":
        sys.stdin.readline()
        say("cancelled")
        sys.exit(1)
    elif does == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        say("log", level="info", text=f"pids {os.getpid()} {child.pid}")
        time.sleep(600)
    elif does == "orphan holds the pipe":
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(20)"], start_new_session=True)
        say("result", outputs={"a": 1})


main()
