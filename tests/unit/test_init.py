"""The initrd's init: its parsers, compiled with this host's C compiler and driven as a program.

Tables say what each accepts and refuses; random and mutated input then runs under the address and
undefined-behaviour sanitizers. What init does with disks is seen by the appliance tests.
"""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

SOURCES = Path(__file__).parents[2] / "services" / "init"
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]

HASH = "0123456789abcdef" * 4
SALT = "aa" * 32
ROOT = f"starter_1.0.0,12297,{SALT},{HASH}"
PACK = f"smollm2 m-smollm2-0123456789abcdef 24012 {SALT} {HASH} /srv/models/smollm2"

# One case per line on stdin ("\\n" stands for a line end), one answer per line on stdout.
DRIVER = r"""
#include "init.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(int count, char **argument)
{
    static char line[1 << 16];

    while (count == 2 && fgets(line, sizeof line, stdin)) {
        char *text, *from, *to;
        const char *wrong;

        line[strcspn(line, "\n")] = '\0';
        text = strdup(line); /* exactly as long as it is, so that the sanitizer sees a read behind it */
        for (from = to = text; *from; from++)
            *to++ = from[0] == '\\' && from[1] == 'n' ? (from++, '\n') : *from;
        *to = '\0';
        if (!strcmp(argument[1], "cmdline")) {
            struct boot_options o;

            wrong = parse_cmdline(text, &o);
            if (!wrong)
                printf("%s %" PRIu64 " %s %s [%s]\n", o.root.label, o.root.data_blocks, o.root.salt,
                       o.root.root_hash, o.state_label);
        } else if (!strcmp(argument[1], "pack")) {
            struct pack p;

            wrong = parse_pack(text, &p);
            if (!wrong)
                printf("%s %s %" PRIu64 " %s %s %s\n", p.name, p.target.label, p.target.data_blocks,
                       p.target.salt, p.target.root_hash, p.mountpoint);
        } else if (!strcmp(argument[1], "module")) {
            struct module_line m;

            wrong = parse_module(text, &m);
            if (!wrong)
                printf("%s [%s]\n", m.optional ? "optional" : "needed", m.path);
        } else if (!strcmp(argument[1], "setting")) {
            struct setting s;

            wrong = parse_setting(text, &s);
            if (!wrong)
                printf("%s %s [%s]\n", s.optional ? "optional" : "needed", s.path, s.value);
        } else {
            char value[8];

            wrong = parse_uevent(text, "PARTNAME", value, sizeof value) ? NULL : "absent";
            if (!wrong)
                printf("[%s]\n", value);
        }
        if (wrong)
            printf("wrong: %s\n", wrong);
        free(text);
    }
    return 0;
}
"""


def compiles(compiler: str, directory: Path, flags: list[str]) -> bool:
    """Whether the compiler has these flags and their run-time libraries."""
    source, program = directory / "probe.c", directory / "probe"
    source.write_text("int main(void) { return 0; }\n")
    done = subprocess.run([compiler, *flags, "-o", program, source], capture_output=True)
    return done.returncode == 0 and subprocess.run([program], capture_output=True).returncode == 0


@pytest.fixture(scope="module")
def compiler() -> str:
    found = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if found is None:
        pytest.skip("no C compiler on this host")
    return found


@pytest.fixture(scope="module")
def driver(compiler: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("init")
    (directory / "driver.c").write_text(DRIVER)
    sanitizers = SANITIZERS if compiles(compiler, directory, SANITIZERS) else []
    command = [
        compiler,
        "-std=gnu11",
        "-g",
        "-O1",
        "-Wall",
        "-Wextra",
        "-Werror",
        *sanitizers,
        f"-I{SOURCES}",
    ]
    program = directory / "driver"
    subprocess.run([*command, "-o", program, directory / "driver.c", SOURCES / "parse.c"], check=True)
    return program


def ask(driver: Path, what: str, *cases: str) -> list[str]:
    lines = [case.replace("\n", "\\n") for case in cases]
    done = subprocess.run(
        [driver, what],
        input="\n".join(lines) + "\n",
        capture_output=True,
        text=True,
        errors="surrogateescape",
    )
    assert done.returncode == 0, done.stderr
    answers = done.stdout.split("\n")[:-1]
    assert len(answers) == len(cases)
    return answers


PARSED = f"starter_1.0.0 12297 {SALT} {HASH}"


@pytest.mark.parametrize(
    ("cmdline", "answer"),
    [
        (f"console=ttyS0 hal.root={ROOT} hal.state=state quiet\n", f"{PARSED} [state]"),
        (f"hal.root={ROOT}", f"{PARSED} []"),
        (f"hal.root={ROOT.replace(SALT, '-')}", f"{PARSED.replace(SALT, '-')} []"),
        (f"xhal.root=evil hal.root={ROOT} hal.rootx=1", f"{PARSED} []"),
        (f"hal.root={ROOT} -- hal.state=state", f"{PARSED} []"),
        (f'dyndbg="file a hal.state=evil +p" hal.root={ROOT}', f"{PARSED} []"),
        ("", "wrong: hal.root is missing"),
        (f"quiet -- hal.root={ROOT}", "wrong: hal.root is missing"),
        (f'note="hal.root={ROOT}"', "wrong: hal.root is missing"),
        (f"hal.root={ROOT} hal.root={ROOT}", "wrong: hal.root is given twice"),
        (f"hal.root={ROOT} hal.state=a hal.state=b", "wrong: hal.state is given twice"),
        (f'hal.root="{ROOT}"', "wrong: a label has 1 to 36 of A-Za-z0-9._+-"),
        ("hal.root=", "wrong: a label has 1 to 36 of A-Za-z0-9._+-"),
        (f"hal.root=../x,1,-,{HASH}", "wrong: a label has 1 to 36 of A-Za-z0-9._+-"),
        (f"hal.root={'a' * 30},1,-,{HASH}", "wrong: the root's label leaves no room for _verity"),
        (f"hal.root=a,0,-,{HASH}", "wrong: the number of data blocks is not a plain positive number"),
        (f"hal.root=a,-1,-,{HASH}", "wrong: the number of data blocks is not a plain positive number"),
        (f"hal.root=a,0x10,-,{HASH}", "wrong: the number of data blocks is not a plain positive number"),
        (f"hal.root=a,{10**15},-,{HASH}", "wrong: the number of data blocks is not a plain positive number"),
        (f"hal.root=a,1,abc,{HASH}", "wrong: the salt is neither lower-case hexadecimal nor -"),
        (f"hal.root=a,1,,{HASH}", "wrong: the salt is neither lower-case hexadecimal nor -"),
        (f"hal.root=a,1,{'a' * 514},{HASH}", "wrong: the salt is longer than 256 bytes"),
        ("hal.root=a,1,-", "wrong: the root hash is not 64 lower-case hexadecimal digits"),
        (f"hal.root=a,1,-,{HASH[1:]}", "wrong: the root hash is not 64 lower-case hexadecimal digits"),
        (f"hal.root=a,1,-,{HASH.upper()}", "wrong: the root hash is not 64 lower-case hexadecimal digits"),
        (f"hal.root=a,1,-,{HASH},x", "wrong: the root hash is not 64 lower-case hexadecimal digits"),
        (f"hal.root={ROOT} hal.state=", "wrong: a label has 1 to 36 of A-Za-z0-9._+-"),
        (f"hal.root={ROOT} hal.state={'s' * 37}", "wrong: a label has 1 to 36 of A-Za-z0-9._+-"),
    ],
)
def test_cmdline(driver: Path, cmdline: str, answer: str) -> None:
    assert ask(driver, "cmdline", cmdline) == [answer]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        (PACK, PACK),
        (PACK + "\n", PACK),
        (PACK.replace(SALT, "-"), PACK.replace(SALT, "-")),
        ("", "wrong: a pack's name has 1 to 64 of A-Za-z0-9._+-"),
        (PACK.replace("smollm2 ", "smol/lm2 ", 1), "wrong: a pack's name has 1 to 64 of A-Za-z0-9._+-"),
        (PACK.replace("/srv/models/smollm2", "srv"), "wrong: the mount point is not a plain absolute path"),
        (PACK.replace("/models", "/.."), "wrong: the mount point is not a plain absolute path"),
        (PACK.replace("/models", "/./models"), "wrong: the mount point is not a plain absolute path"),
        (PACK.replace("/models", "//models"), "wrong: the mount point is not a plain absolute path"),
        (PACK + "/", "wrong: the mount point is not a plain absolute path"),
        (PACK + " more", "wrong: the mount point is not a plain absolute path"),
        (PACK + "a" * 256, "wrong: the mount point is not a plain absolute path"),
        (PACK.partition(" /srv")[0], "wrong: the mount point is not a plain absolute path"),
    ],
)
def test_packs(driver: Path, line: str, answer: str) -> None:
    assert ask(driver, "pack", line) == [answer]


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("/lib/modules/erofs.ko", "needed [/lib/modules/erofs.ko]"),
        ("?/lib/modules/sev-guest.ko\n", "optional [/lib/modules/sev-guest.ko]"),
        ("# a comment", "needed []"),
        ("", "needed []"),
        ("?", "wrong: a module is not a plain absolute path"),
        ("erofs.ko", "wrong: a module is not a plain absolute path"),
        ("/a b", "wrong: a module is not a plain absolute path"),
    ],
)
def test_module_lines(driver: Path, line: str, answer: str) -> None:
    assert ask(driver, "module", line) == [answer]


BAD_NAME = "wrong: a setting's name has parts of a-z0-9_ with dots between"
NO_VALUE = "wrong: a setting has no value of plain characters"


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("kernel.sysrq = 0", "needed /proc/sys/kernel/sysrq [0]"),
        ("-net.ipv4.conf.all.rp_filter=1\n", "optional /proc/sys/net/ipv4/conf/all/rp_filter [1]"),
        (" kernel.core_pattern =  |/bin/false \t", "needed /proc/sys/kernel/core_pattern [|/bin/false]"),
        ("kernel.x = a=b c", "needed /proc/sys/kernel/x [a=b c]"),
        ("# kernel.sysrq = 1", "needed  []"),
        ("", "needed  []"),
        ("  ", "needed  []"),
        ("kernel.sysrq", NO_VALUE),
        ("kernel.sysrq =", NO_VALUE),
        ("kernel.sysrq = a\tb", NO_VALUE),
        ("kernel.sysrq = " + "1" * 256, NO_VALUE),
        ("= 1", BAD_NAME),
        ("- = 1", BAD_NAME),
        ("kernel..sysrq = 1", BAD_NAME),
        ("kernel.sysrq. = 1", BAD_NAME),
        (".kernel.sysrq = 1", BAD_NAME),
        ("kernel/../sysrq = 1", BAD_NAME),
        ("kernel. sysrq = 1", BAD_NAME),
        ("kernel." + "a" * 250 + " = 1", BAD_NAME),
    ],
)
def test_settings(driver: Path, line: str, answer: str) -> None:
    assert ask(driver, "setting", line) == [answer]


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("MAJOR=254\nMINOR=1\nPARTNAME=state\n", "[state]"),
        ("PARTNAME=state", "[state]"),
        ("PARTNAME=\n", "[]"),
        ("XPARTNAME=a\nPARTNAMES=b\n", "wrong: absent"),
        ("PARTNAME", "wrong: absent"),
        ("PARTNAME=longer-than-the-room\n", "wrong: absent"),
        ("", "wrong: absent"),
    ],
)
def test_uevent(driver: Path, text: str, answer: str) -> None:
    assert ask(driver, "uevent", text) == [answer]


@pytest.mark.parametrize(
    ("what", "seed"),
    [
        ("cmdline", f'a="b c" hal.root={ROOT} hal.state=state -- x'),
        ("pack", PACK),
        ("module", "?/lib/modules/erofs.ko"),
        ("setting", "-net.ipv4.conf.all.rp_filter = 1"),
        ("uevent", "MAJOR=254\nMINOR=1\nPARTNAME=st\n"),
    ],
)
def test_random_input_never_breaks_a_parser(driver: Path, what: str, seed: str) -> None:
    chance = random.Random(7)
    alphabet = 'abf019-_.,/ "=?#\n\t\\\x01\x7f\xe9' + seed
    cases = []
    for _ in range(3000):
        text = list(seed)
        for _ in range(chance.randrange(1, 6)):
            at, end = sorted(chance.randrange(len(text) + 1) for _ in range(2))
            match chance.randrange(4):
                case 0:
                    text[at:end] = []
                case 1:
                    text[at:at] = text[at:end] * chance.randrange(1, 4)
                case _:
                    text[at : at + 1] = chance.choices(alphabet, k=chance.randrange(4))
        cases.append("".join(text))
    answers = ask(driver, what, *cases)
    if what != "uevent":  # whose values are only compared, never used as text
        assert all(answer.isascii() and answer.isprintable() for answer in answers)
    assert any(answer.startswith("wrong: ") for answer in answers)


def test_the_whole_program_compiles_without_a_warning(compiler: str, tmp_path: Path) -> None:
    if not compiles(compiler, tmp_path, ["-include", "linux/dm-ioctl.h"]):
        pytest.skip("this host has no Linux headers")
    command = [compiler, "-Os", "-Wall", "-Wextra", "-Werror", "-o", tmp_path / "init"]
    subprocess.run([*command, *sorted(SOURCES.glob("*.c"))], check=True)
    done = subprocess.run([tmp_path / "init"], capture_output=True, text=True)
    assert done.returncode == 2  # it is no PID 1 here, so it touches nothing
    assert "PID 1" in done.stderr


def test_the_module_list_is_well_formed() -> None:
    modules = yaml.safe_load((SOURCES / "modules.yaml").read_text())["modules"]
    names = [module["name"] for module in modules]
    assert len(names) == len(set(names))
    assert {"virtio_blk", "dm_verity", "erofs", "virtio_net"} <= set(names)
    for module in modules:
        assert set(module) <= {"name", "optional", "tee"}, module
        assert module.get("tee", "tdx") in {"sev-snp", "tdx"}
        assert "-" not in module["name"]  # module names have underscores, file names may not
