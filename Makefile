# SPDX-License-Identifier: BSD-2-Clause
#
# Everything is built under $(BUILD). `make help` lists the targets.

BUILD	?= build
CC	?= gcc
CXX	?= g++
AR	?= ar
PREFIX	?= /usr/local
LIBDIR	?= $(PREFIX)/lib
DESTDIR	?=
# SAN=address,undefined or SAN=thread builds everything instrumented.
SAN	?=

VERSION	:= $(shell sed -n 's/^\#define MV_VERSION_STRING "\(.*\)"/\1/p' include/memvirt/version.h)
SOVERSION := 0

CFLAGS	?= -O2 -g
override CFLAGS += -std=gnu11 -Wall -Wextra -Werror -Wstrict-prototypes -Wmissing-prototypes \
	-Wno-unused-parameter -Wno-missing-field-initializers -fvisibility=hidden -pthread \
	$(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=undefined)
override CPPFLAGS += -D_GNU_SOURCE -Iinclude -MMD -MP
override LDFLAGS += -pthread $(if $(SAN),-fsanitize=$(SAN)) -Wl,-z,relro,-z,now

LIBS	:= -lurcu-bp -lnuma -llz4 -lxxhash -lm
TOOL_LIBS := -ljson-c
# memvirt alone reads a configuration.
MEMVIRT_LIBS := -linih

# Sources, by what is linked from them.
CORE_SRC := $(addprefix lib/,memory.c ledger.c view.c access.c platform_none.c) \
	$(wildcard lib/format*.c lib/table*.c lib/guest_walk*.c lib/ept/*.c lib/shadow/*.c)
LIB_SRC	:= $(filter-out lib/platform_none.c,$(wildcard lib/*.c lib/*/*.c))
VM_SRC	:= $(wildcard tools/vm/*.c)
MEMVIRT_SRC := $(wildcard tools/memvirt/*.c)
# The parts of memvirt that do no input or output: tests link them.
MEMVIRT_PURE_SRC := $(wildcard tools/memvirt/run_qemu.c tools/memvirt/walk_decode.c \
	tools/memvirt/walk_fault.c)
MEMSTAT_SRC := $(wildcard tools/memstat/*.c)
PRELOAD_SRC := $(wildcard tools/memvirt/preload/*.c)
# fuzz_replay.c has a main(), and libFuzzer one of its own.
TEST_SUPPORT_SRC := $(filter-out tests/support/fuzz_replay.c,$(wildcard tests/support/*.c))
TEST_SRC := $(wildcard $(patsubst %,tests/%/*.c,unit model contract faults races \
	exhaustive))
FUZZ_SRC := $(wildcard tests/fuzz/fuzz_*.c)
BENCH_SUPPORT_SRC := $(wildcard bench/support/*.c)
BENCH_SRC := $(wildcard bench/bench_*.c)
EXAMPLE_SRC := $(wildcard examples/*.c)
# One of several files.
MINIVMM_SRC := $(wildcard examples/minivmm/*.c)
MINIVMM	:= $(BUILD)/examples/minivmm
PAYLOAD	:= $(if $(SAN)$(COVERAGE),,$(BUILD)/tests/rig/payload.bin)
METAL_SRC := $(wildcard tests/metal/*.c tests/metal/*.S)
MAN	:= $(wildcard docs/man/*.1)

obj = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
bin = $(patsubst %.c,$(BUILD)/%,$(1))

LIB_A	:= $(BUILD)/lib/libmemvirt.a
CORE_A	:= $(BUILD)/lib/libmemvirt-core.a
LIB_SO	:= $(BUILD)/lib/libmemvirt.so.$(VERSION)
PRELOAD	:= $(BUILD)/lib/memvirt/libmemvirt-preload.so
PC	:= memvirt.pc memvirt-core.pc
TOOLS	:= $(if $(MEMVIRT_SRC),$(BUILD)/bin/memvirt) $(if $(MEMSTAT_SRC),$(BUILD)/bin/memstat) \
	   $(if $(PRELOAD_SRC),$(PRELOAD))
TESTS	:= $(call bin,$(TEST_SRC))
FUZZERS	:= $(call bin,$(FUZZ_SRC))
# FUZZ=1: libFuzzer drives them. Otherwise they run their corpus once.
FUZZ_MAIN := $(if $(FUZZ),,$(call obj,tests/support/fuzz_replay.c))
BENCHES	:= $(call bin,$(BENCH_SRC))
EXAMPLES := $(call bin,$(EXAMPLE_SRC))
# What tests of virtual machines run beside them.
REPLAYS	:= $(patsubst tests/rig/replay/%.c,$(BUILD)/tests/rig/%,$(wildcard tests/rig/replay/*.c))
FAKE_LIBVIRT := $(BUILD)/tests/rig/fake/libvirt.so.0
# A processor has no sanitizers, and nowhere to count its statements.
METAL_ROM := $(if $(SAN)$(COVERAGE),,$(BUILD)/tests/metal/metal.rom)

.PHONY: all help demo check check-asan check-tsan check-exhaustive check-fuzz check-long coverage check-layers \
	check-headers bench install clean \
	modules setup tests race-tests fuzzers benches
.DEFAULT_GOAL := all
.SECONDARY:

all: $(LIB_A) $(CORE_A) $(LIB_SO) $(TOOLS) $(EXAMPLES) $(MINIVMM)  ## libraries, tools and examples
tests: all $(TESTS) $(FUZZERS) $(REPLAYS) $(FAKE_LIBVIRT) $(PAYLOAD) $(METAL_ROM)
fuzzers: $(FUZZERS)
race-tests: $(filter $(BUILD)/tests/races/%,$(TESTS))
benches: all $(BENCHES)

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

# --- how things are built ---------------------------------------------------------------

# The core must not lean on a C library: see docs/architecture.md.
$(call obj,$(CORE_SRC)): override CFLAGS += -ffreestanding
# liburcu's inline read side declares more alignment for its records than liburcu gives them.
$(call obj,lib/platform_linux.c): override CFLAGS += -fno-sanitize=alignment
$(BUILD)/obj/tools/% $(BUILD)/obj/tests/% $(BUILD)/obj/bench/%: override CPPFLAGS += -Itools
$(BUILD)/obj/tests/% $(BUILD)/obj/bench/%: override CPPFLAGS += -Ilib -Itests -Ibench

$(BUILD)/obj/%.o: %.c
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) -fPIC -c -o $@ $<

$(LIB_A): $(call obj,$(LIB_SRC))
$(CORE_A): $(call obj,$(CORE_SRC))
%.a:
	@mkdir -p $(@D)
	@rm -f $@
	$(AR) rcs $@ $^

$(LIB_SO): $(call obj,$(LIB_SRC)) lib/memvirt.map
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -shared -Wl,-soname,libmemvirt.so.$(SOVERSION) \
		-Wl,--version-script=lib/memvirt.map -o $@ $(call obj,$(LIB_SRC)) $(LIBS)
	@ln -sf $(@F) $(BUILD)/lib/libmemvirt.so.$(SOVERSION)
	@ln -sf $(@F) $(BUILD)/lib/libmemvirt.so

$(BUILD)/bin/memvirt: $(call obj,$(MEMVIRT_SRC) $(VM_SRC)) $(LIB_A)
$(BUILD)/bin/memvirt: private TOOL_LIBS += $(MEMVIRT_LIBS)
$(BUILD)/bin/memstat: $(call obj,$(MEMSTAT_SRC) $(VM_SRC)) $(LIB_A)
$(BUILD)/bin/%:
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(TOOL_LIBS) $(LIBS)

# The preload library carries the whole library inside, hidden from the VMM it enters.
$(PRELOAD): $(call obj,$(PRELOAD_SRC) \
		$(addprefix tools/vm/,base64.c control_wire.c listen.c rundir.c stat_names.c)) $(LIB_A) \
		tools/memvirt/preload/preload.map
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -shared -Wl,--exclude-libs,ALL \
		-Wl,--version-script=tools/memvirt/preload/preload.map \
		-o $@ $(filter-out %.map,$^) $(TOOL_LIBS) $(LIBS) -ldl

# An archive, so that a test carries only the support that it names.
$(BUILD)/lib/libtest-support.a: $(call obj,$(TEST_SUPPORT_SRC) $(VM_SRC) $(MEMVIRT_PURE_SRC))

$(TESTS): $(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(BUILD)/lib/libtest-support.a $(LIB_A)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -lcmocka $(TOOL_LIBS) $(LIBS)

$(FUZZERS): $(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(FUZZ_MAIN) $(BUILD)/lib/libtest-support.a \
		$(LIB_A)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) $(if $(FUZZ),-fsanitize=fuzzer) -o $@ $^ -lcmocka $(TOOL_LIBS) \
		$(LIBS)

# The driver's side of a virtqueue is the tests' own.
$(BUILD)/bench/bench_balloon: $(call obj,tests/support/virtio_driver.c)
$(BENCHES): $(BUILD)/bench/%: $(BUILD)/obj/bench/%.o $(call obj,$(BENCH_SUPPORT_SRC)) $(LIB_A)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(TOOL_LIBS) $(LIBS)

$(REPLAYS): $(BUILD)/tests/rig/%: $(BUILD)/obj/tests/rig/replay/%.o $(LIB_A)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)

# Loaded by memvirt govern in the place of the real one, whose headers are not needed.
$(call obj,tests/rig/fake/libvirt.c): override CFLAGS += -Wno-missing-prototypes
$(FAKE_LIBVIRT): $(call obj,tests/rig/fake/libvirt.c)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) -shared -o $@ $^

# Examples are built the way a reader would: against the public headers and the library.
$(EXAMPLES): $(BUILD)/examples/%: examples/%.c $(LIB_A)
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) $(CFLAGS) $(LDFLAGS) -o $@ $< $(LIB_A) $(LIBS)

$(MINIVMM): $(call obj,$(MINIVMM_SRC)) $(LIB_A)
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ -ljson-c $(LIBS)

# For a bare processor: it begins with its entry, at 1 MiB.
$(call obj,tests/rig/payload/payload.c): override CFLAGS += -ffreestanding -fno-stack-protector \
	-fcf-protection=none -mno-red-zone -mgeneral-regs-only
$(BUILD)/tests/rig/payload.bin: $(call obj,tests/rig/payload/payload.c)
	@mkdir -p $(@D)
	$(CC) -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-Ttext=0x100100 \
		-Wl,--section-start=.entry=0x100000 -Wl,-e,0x100000 -o $(@:.bin=.elf) $^
	objcopy -O binary -j .entry -j .text -j .rodata* $(@:.bin=.elf) $@

# The image that runs on processor models, with nothing under it: the core's own objects, and the
# tests. See docs/testing.md.
METAL_LD := $(BUILD)/tests/metal/metal.ld
METAL_OBJ := $(patsubst %,$(BUILD)/obj/%.o,$(basename $(filter-out %.ld.S,$(METAL_SRC))))
$(METAL_OBJ): override CFLAGS += -ffreestanding -fno-stack-protector -fcf-protection=none
$(METAL_OBJ): override CPPFLAGS += -Itests/metal

$(BUILD)/obj/%.o: %.S
	@mkdir -p $(@D)
	$(CC) $(CPPFLAGS) -c -o $@ $<

$(METAL_LD): tests/metal/metal.ld.S tests/metal/layout.h
	@mkdir -p $(@D)
	$(CC) -E -P -x c -o $@ $<

$(BUILD)/tests/metal/metal.elf: $(METAL_LD) $(METAL_OBJ) $(CORE_A)
	$(CC) -nostdlib -static -no-pie -Wl,--build-id=none -Wl,-z,noexecstack \
		-Wl,--no-warn-rwx-segments -T $(METAL_LD) -o $@ $(METAL_OBJ) $(CORE_A)

%.rom: %.elf
	objcopy -O binary -j .payload -j .boot -j .reset $< $@

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)

# --- the two commands, and the rest -------------------------------------------------------

setup:
	@scripts/setup build rig

demo: setup  ## two real VMs that share less memory than they use, kept running
	@$(MAKE) --no-print-directory all
	@scripts/rig-prepare
	@demo/demo

check: setup  ## every test that fits in 20 minutes
	@$(MAKE) --no-print-directory tests
	@scripts/rig-prepare
	@tests/run --build $(BUILD) $(TESTFLAGS)

check-asan:  ## the tests that need no VM, under AddressSanitizer and UBSan
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/asan SAN=address,undefined tests
	@tests/run --build $(BUILD)/asan --no-rig $(TESTFLAGS)

check-tsan:  ## the race tests under ThreadSanitizer
	@# Only these: gcc refuses the fences of the preload library under ThreadSanitizer.
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/tsan SAN=thread race-tests
	@tests/run --build $(BUILD)/tsan --only races $(TESTFLAGS)

check-exhaustive: setup  ## all combinations, of which `make check` takes a minute's share
	@$(MAKE) --no-print-directory tests
	@EXHAUSTIVE=1 tests/run --build $(BUILD) --only exhaustive $(TESTFLAGS)

coverage: setup  ## which statements of the library the quick tests run, file by file
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/coverage COVERAGE=1 CFLAGS='-O0 -g --coverage' \
		LDFLAGS=--coverage tests
	@scripts/coverage --build $(BUILD)/coverage

check-long: setup  ## storms and random operations by the million, for tens of minutes
	@$(MAKE) --no-print-directory tests
	@STORM_OPS=1000000 OPS=10000000 tests/run --build $(BUILD) --only races --only model $(TESTFLAGS)

# Objects for libFuzzer watch their branches, and are kept apart.
check-fuzz:  ## the fuzz targets, FUZZ_SECONDS (600) each, or NAME=… one
	@scripts/setup build fuzz
	@$(MAKE) --no-print-directory BUILD=$(BUILD)/fuzz CC=clang FUZZ=1 CFLAGS='-O1 -g' \
		SAN=fuzzer-no-link,address,undefined fuzzers
	@scripts/fuzz --build $(BUILD)/fuzz $(NAME)

check-layers:  ## no subsystem includes another, the core stands alone
	@scripts/check-layers

check-headers:  ## each public header compiles alone, in C and in C++
	@CC="$(CC)" CXX="$(CXX)" scripts/check-headers

bench: setup  ## every benchmark, or NAME=… one; writes build/bench.json
	@$(MAKE) --no-print-directory benches
	@scripts/rig-prepare
	@bench/run --build $(BUILD) $(NAME)

modules: setup  ## the guest balloon driver, for Debian's kernel
	@scripts/rig-prepare kernel
	@scripts/build-module

# Archives as they are installed: one object each, in which internal names are nobody else's, so
# that they clash with none of a VMM's.
INSTALL_A := $(BUILD)/install/libmemvirt.a $(BUILD)/install/libmemvirt-core.a
$(INSTALL_A): $(BUILD)/install/%.a: $(BUILD)/lib/%.a
	@mkdir -p $(@D)
	$(LD) -r --whole-archive -o $(@:.a=.o) $<
	objcopy --localize-hidden $(@:.a=.o)
	@rm -f $@
	$(AR) rcs $@ $(@:.a=.o)

install: all $(INSTALL_A)  ## DESTDIR, PREFIX, LIBDIR
	install -d $(DESTDIR)$(PREFIX)/include/memvirt $(DESTDIR)$(LIBDIR)/pkgconfig \
		$(DESTDIR)$(LIBDIR)/memvirt $(DESTDIR)$(PREFIX)/bin $(DESTDIR)$(PREFIX)/share/man/man1
	install -m 644 include/memvirt/*.h $(DESTDIR)$(PREFIX)/include/memvirt/
	install -m 644 $(INSTALL_A) $(DESTDIR)$(LIBDIR)/
	install -m 755 $(LIB_SO) $(DESTDIR)$(LIBDIR)/
	ln -sf $(notdir $(LIB_SO)) $(DESTDIR)$(LIBDIR)/libmemvirt.so.$(SOVERSION)
	ln -sf $(notdir $(LIB_SO)) $(DESTDIR)$(LIBDIR)/libmemvirt.so
	@# Where it goes is known only now: PREFIX may differ from that of the last build.
	for pc in $(PC); do sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(LIBDIR)|' \
		-e 's|@VERSION@|$(VERSION)|; s|@LIBS@|$(LIBS)|' lib/$$pc.in \
		> $(DESTDIR)$(LIBDIR)/pkgconfig/$$pc; done
	install -m 755 $(PRELOAD) $(DESTDIR)$(LIBDIR)/memvirt/
	install -m 755 $(filter $(BUILD)/bin/%,$(TOOLS)) $(DESTDIR)$(PREFIX)/bin/
	$(if $(MAN),install -m 644 $(MAN) $(DESTDIR)$(PREFIX)/share/man/man1/)

clean:  ## remove what was built
	rm -rf $(BUILD)
