package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"hawser/e2e/lab"
)

// TestDemo plays the whole demo with a small file.
func TestDemo(t *testing.T) {
	lab.NeedRoot(t)
	lab.NeedTools(t, "curl", "nginx", "iptables", "ip6tables")
	var out bytes.Buffer
	if err := play(t.Context(), options{size: 10 * megabyte, cut: "wifi", direct: true}, &screen{out: &out}); err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Logf("\n%s", &out)
	for _, want := range []string{
		"wifi is cut when half of it is there", "wifi is up: ", " to 198.18.100.1:7443 by up1", "wifi is cut now, silently", "tunnel 100 %",
		"with wifi restored", "direct 100 %", "equal at origin and client", "longest stall", "lte", "direct over wifi",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output does not say %q", want)
		}
	}
	nothingLeft(t)
}

// TestInterrupt ends the demo in the middle of the download.
func TestInterrupt(t *testing.T) {
	lab.NeedRoot(t)
	lab.NeedTools(t, "curl", "nginx", "iptables", "ip6tables")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	out := &trigger{word: "is cut now", pull: cancel}
	err := play(ctx, options{size: 50 * megabyte, cut: "lte"}, &screen{out: out})
	if !errors.Is(err, context.Canceled) || strings.Contains(out.text.String(), "summary") {
		t.Errorf("play: %v\n%s", err, &out.text)
	}
	nothingLeft(t)
}

// trigger is an output that pulls when a word comes by.
type trigger struct {
	word string
	pull func()
	once sync.Once
	text bytes.Buffer
}

func (o *trigger) Write(p []byte) (int, error) {
	if bytes.Contains(p, []byte(o.word)) {
		o.once.Do(o.pull)
	}
	return o.text.Write(p)
}

// nothingLeft looks for namespaces, journals and files of this process's labs.
func nothingLeft(t *testing.T) {
	t.Helper()
	mine := fmt.Sprintf("hwlab-demo-%d-*", os.Getpid())
	for _, dir := range []string{"/run/netns", "/run/hawser", os.TempDir()} {
		found, err := filepath.Glob(filepath.Join(dir, mine))
		if err != nil || len(found) > 0 {
			t.Errorf("left behind: %v, %v", found, err)
		}
	}
}

func TestParse(t *testing.T) {
	o, err := parse([]string{"-size", "20", "-cut", "wifi", "-no-direct"}, &bytes.Buffer{})
	if want := (options{size: 20e6, cut: "wifi"}); err != nil || o != want {
		t.Errorf("got %+v, %v, want %+v", o, err, want)
	}
	o, err = parse(nil, &bytes.Buffer{})
	if want := (options{size: 200e6, cut: "lte", direct: true}); err != nil || o != want {
		t.Errorf("without flags: got %+v, %v, want %+v", o, err, want)
	}
	for args, want := range map[string]string{
		"-size 9":    "demo: -size 9: give 10 to 10000 MB\n",
		"-cut dsl":   "demo: -cut dsl: there is no such uplink: give wifi or lte\n",
		"now":        "demo: unexpected argument \"now\"\n",
		"-speed 100": "flag provided but not defined: -speed\n",
	} {
		var complaint bytes.Buffer
		if _, err := parse(strings.Fields(args), &complaint); err == nil || !strings.HasPrefix(complaint.String(), want) {
			t.Errorf("%s: %v, %q, want %q", args, err, &complaint, want)
		}
	}
}

func TestPicture(t *testing.T) {
	want := `
                           +-- wifi  50 Mbit/s, 20 ms --+
  client --- hawser-edge --+                            +-- hawser-cloud --- origin
                           +-- lte   30 Mbit/s, 50 ms --+
   curl                                                                       nginx
`
	if got := "\n" + picture(); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

func TestResult(t *testing.T) {
	sum := strings.Repeat("0123456789abcdef", 4)
	measured := func(sum string, took, stall, stalled time.Duration) *gauge {
		g := &gauge{size: 200e6, sum: sum, took: took, stall: stall, stalled: stalled}
		g.got.Store(200e6)
		return g
	}
	r := result{
		origin: file{200e6, sum}, best: best(), cut: "lte", cutAt: 11 * time.Second,
		tunnel: measured(sum, 28*time.Second, 140*time.Millisecond, 11010*time.Millisecond),
		direct: measured(sum, 34500*time.Millisecond, 20*time.Millisecond, time.Second),
		links:  []share{{"wifi", 166e6}, {"lte", 38e6}},
	}
	r.tunnel.late = 139 * time.Millisecond
	want := `summary
  checksum         equal at origin and client (sha256 0123456789abcdef...)
  tunnel           28.0 s, 57.1 Mbit/s, lte cut at 11.00 s
  longest stall    140 ms, beginning at 11.01 s; since the cut 139 ms
  bytes per link   wifi 166.0 MB (81 %), lte 38.0 MB (19 %)
  direct over wifi 34.5 s, 46.4 Mbit/s, longest stall 20 ms, nothing cut`
	if got := r.String(); got != want || r.whole() != nil {
		t.Errorf("%v, got\n%s\nwant\n%s", r.whole(), got, want)
	}
	r.tunnel.sum = strings.Repeat("f", 64)
	if err := r.whole(); err == nil || !strings.Contains(r.String(), "DIFFERENT") {
		t.Errorf("another checksum: %v\n%s", err, r)
	}
	r.tunnel.sum = sum
	r.direct.got.Store(1)
	if err := r.whole(); err == nil {
		t.Error("a short download passes")
	}
}
