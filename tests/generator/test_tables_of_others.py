"""A user's table of what others have: a driver's interface, and libraries that use the C library's.

The headers are ours, and written as those of HAXM, libkrun and unicorn are.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TABLE = """
[families.driver]
about = "a hypervisor's driver, by ioctl"
system = "linux"
cpus = ["x86_64", "aarch64"]
include = ["theirs"]
headers = ["driver/interface.h"]

[families.library]
system = "linux"
cpus = ["x86_64", "aarch64"]
include = ["theirs"]
headers = ["library/library.h"]
origin = "library"

[families.driver_windows]
system = "windows"
cpus = ["x86_64"]
include = ["theirs"]
headers = ["driver/interface.h"]
defines = ["HAX_PLATFORM_WINDOWS=1", "FILE_DEVICE_UNKNOWN=0x22"]

[origins.library]
name = "Library"
header = "library/library.h"
macros = ["LIB_MAJOR", "LIB_MINOR", "LIB_EXTRA"]
"""

INTERFACE = r"""
#ifndef DRIVER_INTERFACE_H
#define DRIVER_INTERFACE_H
#include "types.h"
#ifdef HAX_PLATFORM_WINDOWS
#define CTL_CODE(t, f, m, a) (((t) << 16) | ((a) << 14) | ((f) << 2) | (m))
#define DRIVER_IOCTL_VERSION CTL_CODE(FILE_DEVICE_UNKNOWN, 0x900, 0, 0)
#else
#include <linux/ioctl.h>
#define DRIVER_IOCTL_VERSION _IOWR(0, 0x20, struct driver_version)
#endif
struct driver_version { uint32_t current, compatible; } PACKED;
typedef union interruptibility {
    uint32_t raw;
    struct { uint32_t sti : 1; uint32_t movss : 1; uint32_t reserved : 30; };
    uint64_t pad;
} interruptibility;
enum exit_status { EXIT_IO = 1, EXIT_MMIO, EXIT_HLT = 0x10 };
struct tunnel {
    uint32_t status;
    union {
        struct { uint8_t direction, df; uint16_t size, port, count; uint8_t flags, pad0; uint16_t pad1; } io;
        struct { paddr_t gla; } mmio;
    };
    uint64_t apic_base;
} PACKED;
#define DRIVER_MAX_VCPUS (64)
#define IO_OUT 0
#define IO_IN 1
#endif
"""

DRIVER_TYPES = r"""
#include <stdint.h>
#if defined(__GNUC__) || defined(__clang__)
#define PACKED __attribute__ ((packed))
#define ALIGNED(x) __attribute__ ((aligned(x)))
#endif
typedef uint64_t paddr_t;
typedef struct ALIGNED(16) fx_layout { uint16_t fcw; uint8_t rest[510]; } fx_layout;
"""

LIBRARY = r"""
#ifndef LIBRARY_H
#define LIBRARY_H
#ifdef __cplusplus
extern "C" {
#endif
#include <inttypes.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/types.h>
#include <unistd.h>
#if defined(__GNUC__)
#define LIB_EXPORT __attribute__((visibility("default")))
#define LIB_DEPRECATED __attribute__((deprecated))
#endif
#define LIB_MAJOR 2
#define LIB_MINOR 0x1
#define LIB_EXTRA "rc4"
#define LIB_MAKE_VERSION(major, minor) ((major << 8) + minor)
#define LIB_VERSION LIB_MAKE_VERSION(LIB_MAJOR, LIB_MINOR)
struct context;
typedef struct context lib_context;
typedef enum lib_error { LIB_OK = 0, LIB_NOMEM, LIB_ARCH } lib_error;
typedef void (*lib_hook)(lib_context *lib, uint64_t address, uint32_t size, void *user_data);
typedef struct lib_region { uint64_t begin, end; uint32_t perms; } lib_region;
typedef union { bool small; double wide; long double widest; } lib_value;
LIB_EXPORT lib_error lib_open(int arch, lib_context **context);
LIB_EXPORT LIB_DEPRECATED int lib_old(lib_context *context);
LIB_EXPORT ssize_t lib_read(lib_context *context, void *bytes, size_t size);
LIB_EXPORT lib_error lib_log(FILE *stream, const char *format, va_list arguments);
LIB_EXPORT lib_error lib_add(lib_context *context, lib_hook hook, ...);
static inline lib_error lib_reset(lib_context *context, ...) {
    va_list arguments; va_start(arguments, context); va_end(arguments); return LIB_OK;
}
#ifdef __cplusplus
}
#endif
#endif
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, text in (
        ("targets.toml", TABLE),
        ("theirs/driver/interface.h", INTERFACE),
        ("theirs/driver/types.h", DRIVER_TYPES),
        ("theirs/library/library.h", LIBRARY),
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


TARGETS = ["driver_x86_64", "driver_aarch64", "driver_windows_x86_64"]
TARGETS += ["library_x86_64", "library_aarch64"]

USE = """
import ctypes
from vmm_arch.abi import driver_aarch64, driver_windows_x86_64, driver_x86_64 as driver
from vmm_arch.abi import library_aarch64, library_x86_64 as library
print(hex(driver.DRIVER_IOCTL_VERSION), hex(driver_windows_x86_64.DRIVER_IOCTL_VERSION))
print(ctypes.sizeof(driver.tunnel), driver.tunnel(status=driver.EXIT_MMIO).status)
print(hex(library.LIB_VERSION), library.LIB_MAKE_VERSION(3, 1), library.LIB_EXTRA)
print(sorted(n for n in library.PROTOTYPES["library/library.h"]))
print(ctypes.sizeof(library.lib_value), ctypes.sizeof(library_aarch64.lib_region))
"""


def test_their_headers_become_modules(folder: Path) -> None:
    gen = [sys.executable, "-m", "vmm_arch_gen"]
    only = ["--targets", "targets.toml", *(word for t in TARGETS for word in ("--only", t))]
    for command in (
        [*gen, "extract", *only, "--output", "abi"],
        [*gen, "generate", "-q", *only, "--abi", "abi", "--output", "src"],
        [sys.executable, "-c", f"import sys; sys.path.insert(0, 'src'){USE}"],
    ):
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "0xc0080020 0x222400",
        "28 2",
        "0x201 769 b'rc4'",
        "['lib_add', 'lib_old', 'lib_open', 'lib_read']",
        "16 24",
    ]
    facts = (folder / "abi/library_x86_64.abi").read_text()
    assert "\norigin own Library 2.0x1.rc4 headers, ziglang 0.17.1, sha256 " in facts
    assert "omitted function lib_log in library/library.h: " in facts  # a va_list
    assert "omitted function lib_reset in library/library.h: " in facts
