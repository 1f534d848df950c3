# SPDX-License-Identifier: BSD-2-Clause
"""The tools' command lines: help, versions, usage errors, every example that stands in a help
text or a man page, and how `memvirt run` prepares what it starts."""
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import tempfile
from pathlib import Path

from harness import paths, tap
from harness.control import RunDir, run_tool

MAN = sorted((paths.ROOT / "docs" / "man").glob("*.1"))
HELPS = {paths.MEMVIRT: ([], ["run"], ["govern"], ["sim"], ["walk"]), paths.MEMSTAT: ([], ["once"])}


def version():
    text = (paths.ROOT / "include" / "memvirt" / "version.h").read_text()
    return re.search(r'MV_VERSION_STRING "(.*)"', text).group(1)


def run(program, *arguments, env=None):
    return run_tool(program, arguments, env or {})


# --- help, version, usage ---------------------------------------------------------------------


def help_texts():
    for program, commands in HELPS.items():
        for command in commands:
            done = run(program, *command, "--help")
            tap.check_equal((done.returncode, done.stderr), (0, ""), f"{command} --help")
            yield program, command, done.stdout


def test_help():
    """cli: --help of each tool and command: usage, options and examples, 80 columns wide"""
    for program, command, text in help_texts():
        tap.check(text.startswith(f"Usage: {' '.join([program.name, *command])}"), text)
        for word in ("Examples:\n", "--help", "--version"):
            tap.check(word in text, f"{command}: no {word}")
        for line in text.splitlines():
            tap.check(len(line) <= 80, f"{command}: {len(line)} columns: {line}")
        if command:
            same = run(program, "help", *command)
            tap.check_equal(same.stdout, text, f"help {command}")


def test_version():
    """cli: --version of each tool and command"""
    for program, commands in HELPS.items():
        for command in commands:
            done = run(program, *command, "--version")
            tap.check_equal(done.stdout, f"{program.name} {version()}\n", f"{command}")


def test_usage():
    """cli: what is wrong with a command line is said on standard error, with status 2"""
    cases = {
        paths.MEMVIRT: ([], ["frob"], ["--frob"], ["help", "frob"], ["run"], ["run", "--limit"],
                        ["run", "--limit=", "--", "true"], ["run", "--name=.x", "--", "true"],
                        ["run", "--qmp", "", "--", "true"], ["run", "--verbose=yes", "--", "true"],
                        ["run", "-x", "--", "true"], ["govern", "--budget", "1K"],
                        ["govern", "--budget", "1G", "--floor", "2G"],
                        ["govern", "--budget", "1G", "--interval", "0"],
                        ["govern", "--budget", "1G", "--interval", "1e9"],
                        ["govern", "--budget", "1G", "--interval", "inf"],
                        ["govern", "--budget", "1G", "a/b"], ["govern", "--budget", "1G", "a="],
                        ["govern", "--budget", "1G", "a=" + "x" * 200],
                        ["govern", "--budget", "1G", "--run-dir", ""],
                        ["walk"], ["walk", "web"], ["walk", "web", "nonsense"],
                        ["walk", "web", "0", "--access=q"], ["walk", "-x", "web", "0"]),
        paths.MEMSTAT: ([], ["frob"], ["--frob"], ["help", "frob"], ["once", "--interval"],
                        ["once", "--interval", "-1"], ["once", "--interval", "x"],
                        ["once", "--interval", "nan"], ["once", "a/b"], ["once", "-x"],
                        ["once", "--run-dir", ""]),
    }
    for program, lines in cases.items():
        for line in lines:
            done = run(program, *line)
            tap.check_equal((done.returncode, done.stdout), (2, ""), f"{line}: {done.stderr}")
            said = done.stderr.splitlines()
            tap.check(len(said) == 2 and all(s.startswith(f"{program.name}: ") for s in said),
                      f"{line}: {done.stderr}")
            tap.check("--help" in said[1], f"{line}: does not say where to read on")


def test_lost_output():
    """cli: help that nobody can read is a failure"""
    for program in HELPS:
        for where in ("/dev/full", "&-"):
            done = subprocess.run(f"{program} --help >{where}", shell=True, capture_output=True,
                                  text=True, check=False)
            tap.check_equal(done.returncode, 1, where)
            tap.check("standard output" in done.stderr, done.stderr)


# --- examples ---------------------------------------------------------------------------------


def joined(text):
    return re.sub(r"\\\\?\n\s*", "", text)


def examples():
    for program, command, text in help_texts():
        for line in joined(text.split("Examples:\n")[1]).splitlines():
            if line.startswith("  "):
                yield f"{program.name} {' '.join(command)} --help", line.strip()
    for page in MAN:
        text = joined(page.read_text())
        for block in re.findall(r"^\.nf\n(.*?)^\.fi", text, re.DOTALL | re.MULTILINE):
            for line in block.splitlines():
                if line.split(" ")[0] in ("memvirt", "memstat"):
                    yield page.name, line


def test_examples():
    """cli: every example of the help texts and man pages is understood"""
    count = 0
    with RunDir() as run_dir:
        for where, line in examples():
            words = shlex.split(line.split(" | ")[0].split(" <")[0])
            program = {"memvirt": paths.MEMVIRT, "memstat": paths.MEMSTAT}[words.pop(0)]
            if words[0] == "run":
                if "--" in words:
                    words = [*words[:words.index("--")], "--", "true"]
            elif words[0] == "govern" and "--help" not in words:
                words += ["--once", "--dry-run"]
            elif words[0] == "sim":
                # Briefly, and into nobody's directory.
                words = [str(run_dir.path / word) if word.endswith((".svg", ".csv")) else word
                         for word in words] + ["--seconds", "1"]
            done = run(program, *words, env=run_dir.env)
            tap.check(done.returncode in (0, 1) and "--help" not in done.stderr,
                      f"{where}: {line}: status {done.returncode}: {done.stderr}")
            count += 1
    tap.note(f"{count} examples")
    tap.check(count >= 20, "where are the examples?")


def test_man_pages():
    """cli: a man page for each tool and command, without a warning, that names every option"""
    names = {page.name for page in MAN}
    tap.check_equal(names, {"memvirt.1", "memvirt-run.1", "memvirt-govern.1",
                            "memvirt-sim.1", "memvirt-walk.1", "memstat.1"}, "pages")
    for program, command, text in help_texts():
        page = "-".join([program.name, *(command if program == paths.MEMVIRT else [])]) + ".1"
        manual = (paths.ROOT / "docs" / "man" / page).read_text().replace("\\-", "-")
        for option in set(re.findall(r"--[a-z-]+", text.split("Examples:")[0])):
            tap.check(option in manual, f"{page} does not explain {option}")
    tap.need(None if shutil.which("groff") else "groff is not installed")
    for page in MAN:
        done = run_tool("groff", ["-man", "-ww", "-z", "-Tutf8", page], {})
        tap.check_equal((done.returncode, done.stderr), (0, ""), page.name)


# --- what is started --------------------------------------------------------------------------


class Vmms:
    """A directory of programs that pass for VMMs; for a `with` statement."""

    def __init__(self, run_dir):
        self.dir = Path(tempfile.mkdtemp(prefix="memvirt-cli-"))
        self.env = {**run_dir.env, "PATH": f"{self.dir}:{os.environ['PATH']}"}

    def __enter__(self):
        self.script("vmm", 'echo "args:$#:$*"\nenv | grep -E "^(MEMVIRT_|LD_PRELOAD=)" | sort')
        return self

    def __exit__(self, *_):
        shutil.rmtree(self.dir)

    def script(self, name, text):
        path = self.dir / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return path

    def link(self, name):
        path = self.dir / name
        path.symlink_to(paths.MEMVIRT)
        return path

    def copy(self, name, mode=0o755):
        path = self.dir / name
        shutil.copy(shutil.which("true"), path)
        path.chmod(mode)
        return path

    def started(self, program, *arguments, **env):
        """What a VMM finds: its arguments and memvirt's part of the environment."""
        done = run(program, *arguments, env={**self.env, **env})
        tap.check_equal(done.returncode, 0, done.stderr)
        lines = done.stdout.splitlines()
        found = dict(line.split("=", 1) for line in lines[1:])
        self.process = found.pop("MEMVIRT_PROCESS", None)
        return lines[0], found


def test_environment():
    """run: the options become the VMM's environment, its arguments stay as they are"""
    with RunDir() as run_dir, Vmms(run_dir) as vmms:
        args, env = vmms.started(paths.MEMVIRT, "run", "--name", "web", "--limit", "1.5G",
                                 "--store-limit", "512M", "--qmp", "/run/q", "--verbose", "--",
                                 "vmm", "-m", "2G", "a b", "--name", "x", "")
        tap.check_equal(args, "args:6:-m 2G a b --name x ", "arguments")
        tap.check_equal(env, {"LD_PRELOAD": str(paths.PRELOAD.resolve()), "MEMVIRT_NAME": "web",
                              "MEMVIRT_LIMIT": str(3 << 29), "MEMVIRT_STORE_LIMIT": str(1 << 29),
                              "MEMVIRT_QMP": "/run/q", "MEMVIRT_RUN_DIR": str(run_dir.path),
                              "MEMVIRT_VERBOSE": "1"}, "environment")
        tap.check(vmms.process.isdigit(), "the process that is the VMM is not told")


def test_defaults():
    """run: without options there are no limits, and the name is the program's and process's"""
    with RunDir() as run_dir, Vmms(run_dir) as vmms:
        _, env = vmms.started(paths.MEMVIRT, "run", "--", "vmm", LD_PRELOAD="")
        tap.check(re.fullmatch(r"vmm-\d+", env["MEMVIRT_NAME"]), env["MEMVIRT_NAME"])
        tap.check_equal([env[f"MEMVIRT_{name}"] for name in ("LIMIT", "STORE_LIMIT", "QMP",
                                                             "VERBOSE")], [""] * 4, "the rest")
        _, env = vmms.started(paths.MEMVIRT, "run", "vmm", LD_PRELOAD="libpthread.so.0")
        tap.check_equal(env["LD_PRELOAD"], f"{paths.PRELOAD.resolve()}:libpthread.so.0", "preload")


def test_qemu_arguments():
    """run: the VM's name and QMP socket come from QEMU's own arguments"""
    with RunDir() as run_dir, Vmms(run_dir) as vmms:
        _, env = vmms.started(paths.MEMVIRT, "run", "--", "vmm", "-name", "guest=my web,,1",
                              "-qmp", "unix:q.sock,server=on")
        tap.check_equal((env["MEMVIRT_NAME"], env["MEMVIRT_QMP"]),
                        ("my_web_1", f"{os.getcwd()}/q.sock"), "from QEMU's arguments")


def test_link():
    """run: a link named memvirt-PROGRAM starts PROGRAM, with options from the environment"""
    with RunDir() as run_dir, Vmms(run_dir) as vmms:
        link = vmms.link("memvirt-vmm")
        args, env = vmms.started(link, "-name", "guest=web", "--limit", "5", MEMVIRT_LIMIT="384M",
                                 MEMVIRT_VERBOSE="0")
        tap.check_equal(args, "args:4:-name guest=web --limit 5", "arguments")
        tap.check_equal((env["MEMVIRT_NAME"], env["MEMVIRT_LIMIT"], env["MEMVIRT_VERBOSE"]),
                        ("web", str(384 << 20), ""), "environment")
        _, env = vmms.started(link, "-name", "web", MEMVIRT_NAME="other")
        tap.check_equal(env["MEMVIRT_NAME"], "other", "name")
        for probe in (["-version"], ["-machine", "none,accel=tcg"], ["-cpu", "help"]):
            _, env = vmms.started(link, *probe, LD_PRELOAD="", MEMVIRT_LIMIT="nonsense")
            tap.check("MEMVIRT_NAME" not in env and not env["LD_PRELOAD"], f"{probe}: {env}")
        done = run(link, env={**vmms.env, "MEMVIRT_LIMIT": "nonsense"})
        tap.check_equal(done.returncode, 2, "a bad limit")
        tap.check("MEMVIRT_LIMIT: 'nonsense'" in done.stderr, done.stderr)
        done = run(vmms.link("memvirt-missing"), env=vmms.env)
        tap.check_equal(done.returncode, 1, "a program that is not there")
        tap.check("cannot find missing in PATH" in done.stderr, done.stderr)


def test_name_in_use():
    """run: a name that a running VM has is refused; a dead one's is not"""
    with RunDir() as run_dir, Vmms(run_dir) as vmms:
        with socket.socket(socket.AF_UNIX) as alive:
            alive.bind(str(run_dir.path / "web.sock"))
            alive.listen(1)
            done = run(paths.MEMVIRT, "run", "--name", "web", "--", "vmm", env=vmms.env)
            tap.check_equal((done.returncode, done.stdout), (1, ""), "status")
            tap.check("'web' is running already" in done.stderr, done.stderr)
        _, env = vmms.started(paths.MEMVIRT, "run", "--name", "web", "--", "vmm")
        tap.check_equal(env["MEMVIRT_NAME"], "web", "name")


def test_programs():
    """run: set-uid, foreign, damaged and unreadable programs are refused, with the reason"""
    with RunDir() as run_dir, Vmms(run_dir) as vmms:
        setuid = vmms.copy("setuid")
        if os.geteuid() == 0:
            os.chown(setuid, 12345, 12345)
        setuid.chmod(0o4755)
        damaged = vmms.copy("damaged")
        data = bytearray(damaged.read_bytes())
        data[32:40] = (1 << 62).to_bytes(8, "little")
        damaged.write_bytes(data)
        foreign = vmms.copy("foreign")
        data[18:20] = (243).to_bytes(2, "little")
        foreign.write_bytes(data)
        vmms.script("loop", "").write_text(f"#!{vmms.dir}/loop\n")
        vmms.script("empty", "").write_text("")
        vmms.script("lost", "").write_text("#!/nonexistent/sh\n")
        vmms.script("nothing", "").write_text("#!\n")
        cases = {"damaged": "headers lead nowhere", "foreign": "another machine",
                 "loop": "interpreter", "empty": "neither an ELF program nor a script",
                 "lost": "/nonexistent/sh", "nothing": "interpreter"}
        if os.geteuid() == 0:
            cases["setuid"] = "set-uid"
        for name, text in cases.items():
            done = run(paths.MEMVIRT, "run", "--", vmms.dir / name, env=vmms.env)
            tap.check_equal(done.returncode, 1, name)
            tap.check(text in done.stderr, f"{name}: {done.stderr}")


def test_streams_and_status():
    """run: the VMM has our input, output, process id and signals, and its status is ours"""
    with RunDir() as run_dir, Vmms(run_dir) as vmms:
        vmms.script("echo", "cat; echo $$; exit 7")
        with subprocess.Popen([str(paths.MEMVIRT), "run", "--", "echo"], stdin=subprocess.PIPE,
                              stdout=subprocess.PIPE, env=dict(os.environ, **vmms.env)) as vmm:
            out, _ = vmm.communicate(b"a line\n", timeout=20)
        tap.check_equal(out.decode(), f"a line\n{vmm.pid}\n", "output")
        tap.check_equal(vmm.returncode, 7, "status")
        with subprocess.Popen([str(paths.MEMVIRT), "run", "--", "sleep", "60"],
                              env=dict(os.environ, **vmms.env)) as vmm:
            vmm.send_signal(signal.SIGTERM)
            tap.check_equal(vmm.wait(20), -signal.SIGTERM, "status after a signal")


def main():
    reason = paths.missing_tools()
    if reason:
        print(f"1..1\nok 1 - command lines # SKIP {reason}")
        return
    tap.main(test_help, test_version, test_usage, test_lost_output, test_examples, test_man_pages,
             test_environment, test_defaults, test_qemu_arguments, test_link, test_name_in_use,
             test_programs, test_streams_and_status)


if __name__ == "__main__":
    main()
