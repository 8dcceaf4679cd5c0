package emu_test

import (
	"bufio"
	"context"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"hawser/e2e/emu"
	"hawser/e2e/lab"
)

// wires makes a lab whose emulator namespace has the free interfaces x0 to x3.
func wires(t *testing.T) *lab.Lab {
	t.Helper()
	lab.NeedTools(t, "ip")
	l := lab.Build(t, lab.Spec{Name: "control", Uplinks: []lab.Uplink{{Name: "u", Unshaped: true}}})
	for _, pair := range [][2]string{{"x0", "x1"}, {"x2", "x3"}} {
		if _, err := l.Exec("emu", "ip", "link", "add", pair[0], "type", "veth", "peer", "name", pair[1]); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

func open(l *lab.Lab, c emu.Config) (e *emu.Emulator, err error) {
	err = l.Do("emu", func() error {
		var err error
		e, err = emu.Open(c)
		return err
	})
	return e, err
}

func TestOpenNamesWhatIsWrong(t *testing.T) {
	l := wires(t)
	for _, c := range []struct {
		paths []emu.PathConfig
		want  string
	}{
		{nil, "at least one"},
		{[]emu.PathConfig{{Name: "p", A: "x0", B: "nope"}}, "nope"},
		{[]emu.PathConfig{{Name: "p", A: "x0", B: "x2"}, {Name: "p", A: "x1", B: "x3"}}, "twice"},
		{[]emu.PathConfig{{Name: "p", A: "x0", B: "x2", Down: emu.Params{Loss: 7}}}, "down: loss"},
		{[]emu.PathConfig{{Name: "p", A: "x0", B: "x2", Up: emu.Params{Trace: "/no/file"}}}, "/no/file"},
	} {
		e, err := open(l, emu.Config{Paths: c.paths})
		if err == nil {
			e.Close()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: error %v, want one with %q", c.paths, err, c.want)
		}
	}
}

// running is an emulator that runs in this process.
type running struct {
	*emu.Emulator
	socket string
	stop   func()
}

func start(t *testing.T, l *lab.Lab) *running {
	t.Helper()
	e, err := open(l, emu.Config{Paths: []emu.PathConfig{{Name: "p", A: "x0", B: "x2", Up: emu.Params{Rate: 5e6}}}})
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Emulator: e, socket: filepath.Join(l.Dir(), "test.sock")}
	listener, err := net.Listen("unix", r.socket)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 2)
	go func() { ended <- e.Run(ctx) }()
	go func() { ended <- e.ServeControl(ctx, listener) }()
	r.stop = func() {
		cancel()
		for range 2 {
			if err := <-ended; err != nil {
				t.Error(err)
			}
		}
	}
	return r
}

func TestControl(t *testing.T) {
	l := wires(t)
	before := runtime.NumGoroutine()
	r := start(t, l)
	c, err := emu.Dial(r.socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Set("p", emu.Both, emu.SetDelay(30*ms), emu.SetLoss(0.5)); err != nil {
		t.Fatal(err)
	}
	if err := c.Set("p", emu.Down, emu.SetBlackhole(true)); err != nil {
		t.Fatal(err)
	}
	s, err := c.Status("p")
	if err != nil {
		t.Fatal(err)
	}
	wantUp := emu.Params{Rate: 5e6, Delay: 30 * ms, Loss: 0.5}
	wantDown := emu.Params{Delay: 30 * ms, Loss: 0.5, Blackhole: true}
	if s.Up.Params != wantUp || s.Down.Params != wantDown {
		t.Errorf("parameters are %+v and %+v", s.Up.Params, s.Down.Params)
	}
	for want, err := range map[string]error{
		`no path "q"`: c.Set("q", emu.Up, emu.SetLoss(0)),
		"loss":        c.Set("p", emu.Up, emu.SetLoss(2)),
		"sideways":    c.Set("p", "sideways", emu.SetLoss(0)),
		"/no/file":    c.Set("p", emu.Down, emu.SetTrace("/no/file")),
		"rate":        c.Set("p", emu.Up, emu.SetTrace("../testdata/traces/starlink-direct.up")),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want one with %q", err, want)
		}
	}
	if again, err := c.Status("p"); err != nil || again.Up.Params != wantUp || again.Down.Params != wantDown {
		t.Errorf("a refused change changed something: %+v, %v", again, err)
	}
	wantRefusals(t, r.socket)
	r.stop() // with the client still connected
	c.Close()
	for deadline := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(ms) {
		if time.Now().After(deadline) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
	if _, err := r.Status(""); err == nil {
		t.Error("an emulator that has ended gave its status")
	}
}

// wantRefusals sends broken lines on one connection; each must get its own error.
func wantRefusals(t *testing.T, socket string) {
	t.Helper()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	in := bufio.NewReader(conn)
	for _, c := range []struct{ line, want string }{
		{`nonsense`, "request"},
		{`{"op": "jump"}`, "jump"},
		{`{"op": "set", "path": "p"}`, "path p"},
		{`{"op": "set", "path": "p", "params": {"speed": 1}}`, "speed"},
		{`{"op": "status"}`, `"paths"`},
		{`{"op": "forget", "path": "no"}`, `there is no path`},
		{`{"op": "forget"}`, `"paths"`},
	} {
		conn.Write([]byte(c.line + "\n"))
		answer, err := in.ReadString('\n')
		if err != nil || !strings.Contains(answer, c.want) {
			t.Errorf("%s: answer %q, %v, want one with %q", c.line, answer, err, c.want)
		}
	}
}
