package main

import (
	"bytes"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/procfs"
)

func TestRequest(t *testing.T) {
	for _, q := range []request{
		{kind: download, bytes: 10_000, load: 7},
		{kind: upload, text: true, congestion: "cubic", load: math.MaxUint64},
		{kind: echo},
	} {
		got, err := readRequest(bytes.NewReader(q.encode()))
		if err != nil || got != q {
			t.Errorf("got %+v, %v; want %+v", got, err, q)
		}
	}
	if _, err := readRequest(bytes.NewReader(make([]byte, requestSize-1))); err != io.ErrUnexpectedEOF {
		t.Errorf("short request: %v", err)
	}
}

func TestQuantiles(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i)
	}
	for _, c := range []struct {
		values  []float64
		q, want float64
	}{{nil, 0.5, 0}, {[]float64{3}, 0.99, 3}, {hundred, 0.5, 50}, {hundred, 0.99, 99}, {hundred, 1, 100}, {hundred, 0, 1}} {
		if got := quantile(c.values, c.q); got != c.want {
			t.Errorf("quantile %v of %d values: %v, want %v", c.q, len(c.values), got, c.want)
		}
	}
	if got := median([]float64{4, 1, 3, 2}); got != 2.5 {
		t.Errorf("median %v, want 2.5", got)
	}
}

func TestGates(t *testing.T) {
	r := report{Gates: []gate{{Got: 0.9, Want: 0.9}, {Got: 0.89, Want: 0.9}, {Got: 20, Want: 21, Most: true}, {Got: 22, Want: 21, Most: true}}}
	if n := r.missed(); n != 2 {
		t.Errorf("%d gates missed, want 2", n)
	}
}

func TestPayloads(t *testing.T) {
	p := newPayloads()
	for name, b := range map[string]payload{"noise": p.noise, "text": p.text} {
		if len(b) != payloadSize {
			t.Errorf("%s has %d bytes", name, len(b))
		}
		for _, off := range []int64{0, 1, payloadSize - 1, payloadSize, 10*payloadSize + 5} {
			if n := len(b.piece(off)); n < 1 || n > pieceSize {
				t.Errorf("%s: piece of %d bytes at %d", name, n, off)
			}
		}
	}
	if bytes.Contains(p.text, []byte{0}) {
		t.Error("the text holds a zero byte")
	}
}

func TestProfileAreas(t *testing.T) {
	const text = `File: hawser-edge
Type: cpu
-----------+-------------------------------------------------------
    1500us   internal/runtime/syscall/linux.Syscall6
             hawser/pkg/split.(*sender).attempt
             hawser/pkg/split.(*outbox).loop
-----------+-------------------------------------------------------
     500us   crypto/internal/fips140/aes/gcm.gcmAesDec
             hawser/pkg/relay.(*Worker).openRecord
-----------+-------------------------------------------------------
`
	got := parseTraces(text)
	got = slices.DeleteFunc(got, func(t trace) bool { return t.value == 0 })
	if len(got) != 2 || got[0].value != 1500 || len(got[0].stack) != 3 || got[1].value != 500 {
		t.Fatalf("parsed %+v", got)
	}
	for i, want := range []string{"system call: hub, send frames", "crypto"} {
		if a := areaOf(got[i].stack); a != want {
			t.Errorf("area %q, want %q", a, want)
		}
	}
	if a := areaOf([]string{"main.main"}); a != "other" {
		t.Errorf("area %q, want other", a)
	}
}

func TestDecisionParts(t *testing.T) {
	loop := "hawser/pkg/tunnel.(*Session).step"
	for _, c := range []struct {
		stack []string
		want  int
	}{
		{[]string{"hawser/scheduler.Earliest.Pick", "hawser/pkg/tunnel.(*Session).pick", loop}, 3},
		{[]string{"runtime.memmove", "hawser/pkg/tunnel.(*Session).refreshViews", loop}, 2},
		{[]string{"hawser/pkg/wire.AppendData", "hawser/pkg/tunnel.(*Session).carry", "hawser/pkg/tunnel.(*Session).resendLate", loop}, 1},
		{[]string{"runtime.memmove", "hawser/pkg/relay.(*Worker).run"}, 0},
	} {
		if got := partsOf(c.stack); len(got) != c.want {
			t.Errorf("%v belongs to %q, wanted %d parts", c.stack, got, c.want)
		}
	}
}

// TestPossible: a rate counts as far as the uplinks carried it in the same time, by the
// largest packets of who sent it.
func TestPossible(t *testing.T) {
	for _, c := range []struct {
		rival     string
		delivered float64
		carried   []float64
		want      float64
	}{
		{"hawser-tcp", 66, []float64{50, 20}, 66},
		{"hawser-tcp", 68.7, []float64{50, 20}, 70 * 1448 / 1500.0}, // a second's worth waited for order before
		{"hawser-quic", 68.7, []float64{50, 20}, 70 * 1414 / 1469.0},
		{"mptcp-bbr", 68.7, []float64{50, 20}, 70 * 1424 / 1500.0},
		{"single-bbr", 9.4, []float64{10, 0}, 9.4},
	} {
		r := rivals[slices.IndexFunc(rivals, func(r rival) bool { return r.name == c.rival })]
		if got := possible(c.delivered, c.carried, r.share()); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("%s, %v of %v: %v, want %v", c.rival, c.delivered, c.carried, got, c.want)
		}
	}
}

func TestRecordingsAreLookedForFirst(t *testing.T) {
	t.Chdir("../..")
	f := pathFlags{only: "twins,train-trace"}
	if _, _, err := f.choose(); err != nil {
		t.Errorf("in the clone: %v", err)
	}
	t.Chdir(t.TempDir())
	if _, _, err := f.choose(); err == nil || !strings.Contains(err.Error(), "train-trace: ") || !strings.Contains(err.Error(), "in the clone") {
		t.Errorf("elsewhere: %v, want an error that names the scenario and where to run it", err)
	}
	f = pathFlags{only: "twins"}
	if _, _, err := f.choose(); err != nil {
		t.Errorf("elsewhere, without recordings: %v", err)
	}
}

// TestKindRivals: each policy that the configuration knows has its row, and nothing else.
func TestKindRivals(t *testing.T) {
	rows, err := kindRivals("minrtt,fifo,round-robin,roundrobin")
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range []string{"{path: minrtt}", "{data: fifo}", "{order: round-robin}", "{path: roundrobin}"} {
		if rows[i].scheduler != want || !rows[i].hawser() {
			t.Errorf("%+v, want %s", rows[i], want)
		}
	}
	if _, err := kindRivals("minrtt,best"); err == nil {
		t.Error("a policy that there is not was taken")
	}
}

func TestStolen(t *testing.T) {
	at := procfs.CPUStat{User: 100, System: 50, Idle: 1000, Steal: 7}
	for _, c := range []struct {
		name string
		now  procfs.CPUStat
		want float64
	}{
		{"nothing done", at, 0},
		{"alone", procfs.CPUStat{User: 130, System: 60, Idle: 1010, Steal: 7}, 0},
		{"a quarter", procfs.CPUStat{User: 120, System: 55, SoftIRQ: 5, Idle: 1500, Steal: 17}, 0.25},
		{"nothing got", procfs.CPUStat{User: 100, System: 50, Idle: 1000, Steal: 9}, 1},
	} {
		if got := stolen(at, c.now); got != c.want {
			t.Errorf("%s: %v of the time, wanted %v", c.name, got, c.want)
		}
	}
	if processors().User == 0 {
		t.Error("what the processors have done could not be read")
	}
}
