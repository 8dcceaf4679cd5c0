package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// Times of the profiled load.
const (
	profileTime  = 6 * time.Second
	profileFlows = 16
)

// profiled is a bulk download with CPU profiles of both agents.
type profiled struct {
	load  measured
	files map[string]string // by role
}

// profileFlowsDown lets n flows download, unshaped.
func (b *bench) profileFlowsDown(n int, t phases) (p profiled, err error) {
	dir, err := filepath.Abs(b.out)
	if err == nil {
		err = os.MkdirAll(dir, 0o755)
	}
	if err != nil {
		return p, err
	}
	p.files = map[string]string{"edge": filepath.Join(dir, "edge.pprof"), "cloud": filepath.Join(dir, "cloud.pprof")}
	w, err := open(bareLines(), pair.Options{
		EdgeEnv: []string{"HAWSER_CPUPROFILE=" + p.files["edge"]}, CloudEnv: []string{"HAWSER_CPUPROFILE=" + p.files["cloud"]},
	})
	if err != nil {
		return p, err
	}
	p.load, err = b.bulk(w, way{}, request{kind: download}, n, t)
	return p, errors.Join(err, w.close())
}

// profile shows where the agents' CPU time goes in a bulk download.
func (b *bench) profile() (*report, error) {
	p, err := b.profileFlowsDown(profileFlows, phases{0, profileTime})
	if err != nil {
		return nil, err
	}
	m := p.load.Steady
	r := &report{
		Title: fmt.Sprintf("profile: share of each agent's CPU time, %d flows down, unshaped, noise, egress hub", profileFlows),
		Head:  []string{"area", "edge", "cloud"},
		Notes: []string{
			fmt.Sprintf("%.2f Gbit/s; CPU-s/GB: edge %.2f, cloud %.2f", m.mbps()/1000, m.perGB(m.Edge), m.perGB(m.Cloud)),
			fmt.Sprintf("go tool pprof -top -cum %s", p.files["edge"]),
		},
	}
	shares := map[string]map[string]float64{}
	for role, file := range p.files {
		if shares[role], err = areasOf("hawser/"+role, file); err != nil {
			return nil, err
		}
	}
	r.Raw = shares
	r.areaRows(shares)
	return r, nil
}

func (r *report) areaRows(shares map[string]map[string]float64) {
	both := map[string]float64{}
	for _, s := range shares {
		for area, share := range s {
			both[area] += share
		}
	}
	var names []string
	for area := range both {
		names = append(names, area)
	}
	slices.SortFunc(names, func(a, b string) int { return int(1e6 * (both[b] - both[a])) })
	for _, area := range names {
		r.add(area, fmt.Sprintf("%.1f %%", 100*shares["edge"][area]), fmt.Sprintf("%.1f %%", 100*shares["cloud"][area]))
	}
}

// area is a kind of work. A sample belongs to the first area of which all
// fragments occur, each in one function of its stack.
type area struct {
	name string
	in   []string
}

var areas = []area{
	{"garbage collector", []string{"runtime.gcBgMarkWorker"}},
	{"garbage collector", []string{"runtime.gcAssistAlloc"}},
	{"garbage collector", []string{"runtime.bgsweep"}},
	{"system call: hub, send frames", []string{"Syscall", "split.(*sender)"}},
	{"system call: hub, receive frames", []string{"Syscall", "split.(*receiver)"}},
	{"system call: link, write", []string{"Syscall", "link.(*tcpPipe).write"}},
	{"system call: link, read", []string{"Syscall", "link.(*tcpPipe).read"}},
	{"system call: kernel sockets", []string{"Syscall", "sock.(*Conn)"}},
	{"system call: other", []string{"Syscall"}},
	{"system call: futex, epoll", []string{"runtime.futex"}},
	{"system call: futex, epoll", []string{"runtime.netpoll"}},
	{"crypto", []string{"aes/gcm"}},
	{"crypto", []string{"crypto/"}},
	{"compression", []string{"klauspost/compress"}},
	{"compression", []string{"pkg/compress"}},
	{"memory: clear", []string{"runtime.memclr"}},
	{"memory: copy", []string{"runtime.memmove"}},
	{"memory: allocate", []string{"runtime.mallocgc"}},
	{"Go scheduler", []string{"runtime.schedule"}},
	{"Go scheduler", []string{"runtime.mcall"}},
	{"Go scheduler", []string{"runtime.ready"}},
	{"netstack", []string{"gvisor.dev"}},
	{"split", []string{"hawser/pkg/split"}},
	{"relay", []string{"hawser/pkg/relay"}},
	{"link", []string{"hawser/pkg/link"}},
	{"tunnel", []string{"hawser/pkg/tunnel"}},
}

func areaOf(stack []string) string {
	for _, a := range areas {
		if !slices.ContainsFunc(a.in, func(part string) bool { return !mentions(stack, part) }) {
			return a.name
		}
	}
	return "other"
}

func mentions(stack []string, part string) bool {
	return slices.ContainsFunc(stack, func(f string) bool { return strings.Contains(f, part) })
}

// areasOf returns each area's share of a CPU profile.
func areasOf(program, file string) (map[string]float64, error) {
	return sharesOf(program, file, func(stack []string) []string { return []string{areaOf(stack)} })
}

// sharesOf returns the share of a CPU profile that belongs to each name: a stack
// may have several.
func sharesOf(program, file string, names func(stack []string) []string) (map[string]float64, error) {
	binary, err := lab.Binary(program)
	if err != nil {
		return nil, err
	}
	out, err := exec.Command("go", "tool", "pprof", "-traces", "-unit=us", binary, file).Output()
	if err != nil {
		return nil, fmt.Errorf("go tool pprof %s: %w", file, err)
	}
	shares, total := map[string]float64{}, 0.0
	for _, t := range parseTraces(string(out)) {
		for _, name := range names(t.stack) {
			shares[name] += t.value
		}
		total += t.value
	}
	if total == 0 {
		return nil, fmt.Errorf("the profile %s is empty", file)
	}
	for name := range shares {
		shares[name] /= total
	}
	return shares, nil
}

// trace is one sampled stack, innermost function first.
type trace struct {
	value float64 // microseconds
	stack []string
}

// parseTraces reads the output of pprof -traces: stacks between dashed lines,
// the value before the first function.
func parseTraces(text string) (out []trace) {
	inside := false
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if strings.HasPrefix(line, "-----------+") {
			inside = true
			out = append(out, trace{})
			continue
		}
		if !inside || line == "" {
			continue
		}
		t := &out[len(out)-1]
		if first, rest, ok := strings.Cut(line, " "); ok && len(t.stack) == 0 {
			if v, err := strconv.ParseFloat(strings.TrimSuffix(first, "us"), 64); err == nil {
				t.value, line = v, strings.TrimSpace(rest)
			}
		}
		t.stack = append(t.stack, line)
	}
	return out
}
