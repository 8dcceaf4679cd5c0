package agent

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/config"
)

// listener is an edge's agent with one link, lte, that takes hints.
func listener(hints string) (*agent, *uplink) {
	u := &uplink{name: "lte"}
	a := &agent{cfg: &config.Edge{Hints: hints}, log: slog.New(slog.DiscardHandler)}
	a.tunnels = &tunnels{term: newTerm(), uplinks: []*uplink{u}}
	u.tunnels = a.tunnels
	a.hints.Store(&hints)
	return a, u
}

// TestTakeHint: a hint for a link that exists shows in status while it holds,
// and stands in the terms that the next session is told; others are refused in
// one line.
func TestTakeHint(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, u := listener("")
		say := func(line string) error {
			_, err := a.takeHint(context.Background(), strings.Fields(line))
			return err
		}
		if err := say(`{"link": "lte", "usable": false, "rate_down_kbit": 800, "signal_dbm": -110, "valid_s": 60}`); err != nil {
			t.Fatal(err)
		}
		if got := u.said(time.Now()); got != "leaving, down 800 kbit/s, signal -110 dBm" {
			t.Errorf("status says %q", got)
		}
		if got := u.termsNow(); !got.Leaving || got.Down != 100_000 || got.Serial != 1 || !got.Until.Equal(time.Now().Add(time.Minute)) {
			t.Errorf("the terms are %+v", got)
		}
		time.Sleep(time.Minute)
		if got := u.said(time.Now()); got != "" {
			t.Errorf("a stale hint says %q", got)
		}
		if err := say(`{"link":"lte","valid_s":0}`); err != nil || u.termsNow().Serial != 2 {
			t.Errorf("withdrawn: %v, the terms are %+v", err, u.termsNow())
		}
		if err := say(`{"link":"dsl","valid_s":1}`); err == nil || err.Error() != `hint: no link is called "dsl": status names them` {
			t.Errorf("an unknown link: %v", err)
		}
		if err := say(`nonsense`); err == nil {
			t.Error("nonsense was taken")
		}
	})
}

// TestHintTail: lines are read once, however the file is written; those of a
// file that stood there before count from its last change.
func TestHintTail(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hints")
	tail := hintTail{path: path}
	defer tail.close()
	expect := func(step, want string, when time.Time) {
		t.Helper()
		lines, at, err := tail.read(when)
		got := ""
		for _, l := range lines {
			got += string(l) + ";"
		}
		if err != nil || got != want {
			t.Errorf("%s: %q, %v; want %q", step, got, err, want)
		}
		if want != "" && at == at.Round(0) {
			t.Errorf("%s: said at %v: a clock that is set back would make the hint hold longer", step, at)
		}
		if want != "" && (at.After(when) || step == "old" && when.Sub(at) < time.Hour) {
			t.Errorf("%s: said at %v", step, at)
		}
	}
	write := func(flag int, text string) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|flag, 0o600)
		if err == nil {
			_, err = f.WriteString(text)
		}
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	now := time.Now().Add(time.Second)
	expect("missing", "", now)
	write(os.O_TRUNC, "a\n")
	past := time.Now().Add(-2 * time.Hour)
	if err := os.Chtimes(path, past, past); err != nil {
		t.Fatal(err)
	}
	expect("old", "a;", now)
	expect("nothing new", "", now)
	write(os.O_APPEND, "b\n\nc\nhal")
	expect("appended", "b;c;", now)
	write(os.O_APPEND, "f\n")
	expect("the rest", "half;", now)
	write(os.O_TRUNC, "d\n")
	expect("written anew", "d;", now)
	write(os.O_TRUNC, "e\n")
	later := time.Now().Add(time.Second)
	_ = os.Chtimes(path, later, later)
	expect("as long as before", "e;", now.Add(time.Minute))
	write(os.O_TRUNC, "longer\n")
	expect("longer than before", "longer;", now.Add(time.Minute))
	write(os.O_TRUNC, "louder\nh\n")
	expect("a first line as long as before", "louder;h;", now.Add(time.Minute))
	write(os.O_APPEND, "i\n")
	expect("appended to that", "i;", now.Add(time.Minute))
	write(os.O_TRUNC, "lauder\nh\ni\nj\n")
	expect("another first line", "lauder;h;i;j;", now.Add(time.Minute))
	_ = os.Remove(path)
	write(0, "e\nf\n")
	expect("another file", "e;f;", now.Add(time.Minute))
	_ = os.Remove(path)
	expect("removed", "", now)
	write(0, "e\nf\ng\n")
	expect("a third file", "e;f;g;", now.Add(time.Minute))
	write(os.O_APPEND, strings.Repeat("x", hintLine+1))
	if _, _, err := tail.read(now); err == nil {
		t.Error("an endless line was taken")
	}
	write(os.O_APPEND, "\ng\n")
	expect("after it", "g;", now)
}

// TestCheckHints: what is no file is found before anything was written to it for nothing.
func TestCheckHints(t *testing.T) {
	dir := t.TempDir()
	for path, want := range map[string]int{"": 0, dir + "/none": 0, dir: 1, "/dev/null": 1} {
		if found := checkHints(&config.Edge{Hints: path}); len(found) != want {
			t.Errorf("%q: %+v", path, found)
		}
	}
}

// TestHintFile: what stands in the file reaches the link, and the watch ends
// with its context.
func TestHintFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hints")
	a, u := listener(path)
	if err := os.WriteFile(path, []byte("{\"link\":\"lte\",\"usable\":false,\"valid_s\":600}\nbad\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := a.watchHints(ctx); err != nil {
		t.Fatal(err)
	}
	if got := u.said(time.Now()); got != "leaving" {
		t.Errorf("status says %q", got)
	}
}

// TestOtherHintFile: the watch goes over to another file, and to none, while it is at work.
func TestOtherHintFile(t *testing.T) {
	dir := t.TempDir()
	none, first, second := "", filepath.Join(dir, "first"), filepath.Join(dir, "second")
	a, u := listener(none)
	a.rehint = make(chan struct{}, 1)
	for path, usable := range map[string]bool{first: false, second: true} {
		if err := os.WriteFile(path, fmt.Appendf(nil, "{\"link\":\"lte\",\"usable\":%v,\"signal_dbm\":-1,\"valid_s\":600}\n", usable), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- a.watchHints(ctx) }()
	for _, c := range []struct{ file, want string }{{none, ""}, {first, "leaving, signal -1 dBm"}, {none, "leaving, signal -1 dBm"}, {second, "signal -1 dBm"}} {
		a.hints.Store(&c.file)
		a.rehint <- struct{}{}
		got := ""
		for range 50 {
			time.Sleep(hintEvery / 2)
			if got = u.said(time.Now()); got == c.want {
				break
			}
		}
		if got != c.want {
			t.Errorf("by %q status says %q, want %q", c.file, got, c.want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}
