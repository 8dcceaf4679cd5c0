# hawser: build, test, demonstrate, install. `make help` lists the targets.
#
#   sudo make demo     the lab, a download over two uplinks, one is cut half-way
#   sudo make test     everything; without root the privileged tests are skipped

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := build

# Under sudo these may be missing: root's PATH often lacks Go's and sbin
# directories, and Go wants a home for its caches.
export PATH := $(PATH):/usr/local/go/bin:/usr/local/sbin:/usr/sbin:/sbin
HOME ?= /root
export HOME

# Root may not be allowed to ask git about another user's clone; the build
# then goes without the commit in `version`.
ifneq ($(shell git status --porcelain --ignored=no >/dev/null 2>&1 && echo yes),yes)
export GOFLAGS := $(GOFLAGS) -buildvcs=false
endif

GO       ?= go
PREFIX   ?= /usr/local
DESTDIR  ?=
FUZZTIME ?= 10s

SOURCE := cloud docs e2e edge netns pkg scheduler
# The slowest come first, so that the others run beside them.
UNIT   := ./netns/... ./pkg/tunnel ./pkg/split ./pkg/link ./pkg/relay ./pkg/... ./scheduler/... ./edge/... ./cloud/... ./docs/...
# Simulations on one goroutine, of a package that may have no other (pkg/floors_test.go): there is
# no race to find, and the search takes seven times as long.
LONE   := pkg/bbr

.PHONY: help build setup demo test vet unit e2e fuzz bench bench-paths bench-peers bench-mix bench-splice bench-flood bench-crowd bench-lan bench-cards bench-fairness ablation soak microbench install uninstall clean

help: ## list the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

build: ## the programs, into bin/
	$(GO) build -o bin/hawser-edge ./edge
	$(GO) build -o bin/hawser-cloud ./cloud
	$(GO) build -o bin/hawser-emu ./e2e/emu/hawser-emu
	$(GO) build -o bin/hawser-crowd ./e2e/crowd/hawser-crowd

setup: ## install what is missing on a Debian machine
	@scripts/setup.sh

demo: setup build ## the lab, a download over two uplinks, one is cut half-way
	HAWSER_BIN=$(CURDIR)/bin $(GO) run ./e2e/demo

test: setup build vet unit e2e ## all tests

vet: ## gofmt and go vet
	@unformatted=$$(gofmt -l $(SOURCE)); \
		[ -z "$$unformatted" ] || { echo "run gofmt -w on:" $$unformatted >&2; exit 1; }
	$(GO) vet ./...
	$(GO) vet -tags cardfaults ./pkg/box
	$(GO) vet -tags race ./pkg/nonblock

unit: ## unit tests, with the race detector
	@$(MAKE) --no-print-directory -j 2 race simulations

# `vet` has looked at everything; the tests' own vet would do it again for each kind of build.
.PHONY: race
race:
	$(GO) test -race -vet=off -shuffle=on -timeout 20m $$($(GO) list $(UNIT) | grep -vx hawser/$(LONE))

# In virtual time it does not matter when they run: they take what the others leave, which often wait.
# What must not allocate is tested here too, as the race detector has pools drop what they hold, and
# pkg/nonblock, which is built otherwise with it.
.PHONY: simulations
simulations:
	nice $(GO) test -vet=off -run 'TestSimulation|TestAblation|TestNoPause|TestTremblingStart|TestTremblingStartFoundLate|TestCopiesUnderLoss|TestCopiesOnATrain|TestUrgentConnection|TestWorkPerChunk|TestSlowUplinks|TestTwoSlowLinks|TestObjectsUnlike|TestLostMessages|TestSilentFaults|TestUsersShareEvenly|TestWeights|TestPrivilegedUser|TestStuckConsumers|TestCrowdLeavesRoom|TestLead|TestGoodput|TestStuckHead|TestBurst' ./pkg/tunnel
	nice $(GO) test -vet=off -run 'TestObjects|TestObjectsBesideFar|TestSilentFaults|TestUrgentStream|TestTremblingUplinks|TestFallenLine|TestLongerPath|TestNoAllocations|TestDatagramsAllocate' ./pkg/link
	nice $(GO) test -vet=off -run 'TestMendQueue' ./pkg/split
	nice $(GO) test -vet=off -run 'TestNoAllocation|TestPoolNoAllocation|TestNoAllocationPerChunk|TestNoAllocationPerRecord' ./pkg/box ./pkg/card ./pkg/compress ./pkg/relay
	nice $(GO) test -vet=off -shuffle=on ./pkg/nonblock ./$(LONE)

.PHONY: steps
steps: ## netns: a crash at every single step, 5 minutes
	HAWSER_EVERY_STEP=1 $(GO) test ./netns -count=1 -timeout 20m -run 'TestCrashAtEveryStep|TestFailingStep'

.PHONY: kernels
kernels: ## boots Debian's own kernels under QEMU and tries there what depends on them, six minutes each; KERNELS=trixie for one
	@scripts/kernels.sh $(KERNELS)

e2e: ## tests of the programs in the lab
	HAWSER_BIN=$(CURDIR)/bin $(GO) test -vet=off ./e2e/... -count=1 -timeout 25m -p 1

fuzz: ## each fuzz target for FUZZTIME
	@scripts/fuzz.sh $(FUZZTIME)

bench: setup build ## tables of goodput, objects, CPU cost, peers and blackholes in the lab, medians of 5, about 25 minutes; BENCH="-only goodput" for some
	HAWSER_BIN=$(CURDIR)/bin $(GO) run ./e2e/bench $(BENCH)

bench-paths: setup build ## how uplinks are used in 19 scenarios, beside single TCP and kernel MPTCP, two and a half hours; PATHS="-only loss -runs 1" for some, PATHS="-faults 50" for silent faults
	HAWSER_BIN=$(CURDIR)/bin $(GO) run ./e2e/bench paths $(PATHS)

bench-peers: setup build ## hawser beside stunnel, haproxy and shadowsocks-libev, medians of 5, 6 minutes; PEERS="-runs 1 -racers tproxy" for some
	HAWSER_BIN=$(CURDIR)/bin $(GO) run ./e2e/bench -only peers -runs 5 $(PEERS)

bench-mix: setup build ## what every kind of load costs the agents per GB, connection and message, with CPU profiles in bench-results/; MIX="-racers tproxy -load ping -seconds 3" for some
	HAWSER_BIN=$(CURDIR)/bin $(GO) run ./e2e/bench -only mix -runs 1 $(MIX)

bench-splice: ## connections spliced around the tunnel, by the agent and in the kernel, beside plain forwarding through the same host, half a minute
	$(GO) test -run '^$$' -bench '^BenchmarkSplice$$' -benchtime 1x ./pkg/split

bench-flood: setup build ## clients under a SYN flood at the edge, beside kernel SYN cookies; FLOOD="-rate 100000 -time 60s"
	HAWSER_BIN=$(CURDIR)/bin $(GO) run ./e2e/flood $(FLOOD)

bench-crowd: setup build ## memory of 100,000 idle flows, slow readers, workers, 20,000 clients of dead servers, 17 minutes; CROWD="-only memory -flows 20000" for some
	HAWSER_BIN=$(CURDIR)/bin $(GO) run ./e2e/bench crowd $(CROWD)

bench-lan: setup build ## clients on LANs that lose packets, beside kernel Cubic, 8 minutes; LAN="-only lan-up -runs 3" for some
	HAWSER_BIN=$(CURDIR)/bin $(GO) run ./e2e/bench -only lan,lan-wifi,lan-frames,lan-up -runs 1 $(LAN)

bench-cards: ## inline, pool and kernel cards at 1, 4 and 16 KB: what card.kind auto rests on
	$(GO) test -run '^$$' -bench Table -benchtime 1x ./pkg/card

soak: setup build ## an hour of load under random faults of uplinks and crypto cards, every byte checked; SOAK="-for 5m -seed 7" for less
	HAWSER_BIN=$(CURDIR)/bin $(GO) run ./e2e/soak $(SOAK)

ablation: ## what each mechanism of the scheduler brings, in virtual time, 4 minutes; ABLATION="-terrain loss,train" for some
	cd pkg/tunnel && $(GO) test -count=1 -timeout 30m -run '^TestAblationTable$$' -args -ablation $(ABLATION)

bench-fairness: setup build ## how users share the pair's uplinks: equal ones, weights, a privileged one, readers that do not read, 2 minutes
	HAWSER_BIN=$(CURDIR)/bin $(GO) run ./e2e/bench -only fairness -runs 1

.PHONY: bpf
bpf: ## the BPF programs from their C sources; needs clang, llvm and libbpf-dev, the results are committed
	$(GO) generate ./pkg/shield ./pkg/shunt ./pkg/resume

microbench: ## Go benchmarks of the packages
	$(GO) test -run '^$$' -bench . -benchtime 1s $(UNIT)

install: build ## programs, examples, licences and systemd units, below PREFIX
	install -D -m 755 -t $(DESTDIR)$(PREFIX)/bin bin/hawser-edge bin/hawser-cloud
	install -D -m 644 -t $(DESTDIR)$(PREFIX)/share/doc/hawser configs/edge.yaml configs/cloud.yaml configs/edge-relay.yaml configs/cloud-relay.yaml LICENSE
	GO=$(GO) scripts/licenses.sh $(DESTDIR)$(PREFIX)/share/doc/hawser/licenses
	install -d -m 755 $(DESTDIR)/etc/hawser $(DESTDIR)$(PREFIX)/lib/systemd/system
	for unit in hawser-edge hawser-cloud hawser-edge-relay hawser-cloud-relay; do \
		sed 's|/usr/local/bin|$(PREFIX)/bin|' configs/$$unit.service | install -m 644 /dev/stdin $(DESTDIR)$(PREFIX)/lib/systemd/system/$$unit.service; \
	done

uninstall: ## removes what install has put there, but nothing in /etc/hawser and /var/lib/hawser
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/bin/,hawser-edge hawser-cloud)
	rm -f $(addprefix $(DESTDIR)$(PREFIX)/lib/systemd/system/,hawser-edge.service hawser-cloud.service hawser-edge-relay.service hawser-cloud-relay.service)
	rm -rf $(DESTDIR)$(PREFIX)/share/doc/hawser
	for dir in $(addprefix $(DESTDIR)$(PREFIX)/,share/doc lib/systemd/system lib/systemd) $(DESTDIR)/etc/hawser; do \
		[ ! -d $$dir ] || rmdir --ignore-fail-on-non-empty $$dir; \
	done

clean: ## what build has made
	rm -rf bin
