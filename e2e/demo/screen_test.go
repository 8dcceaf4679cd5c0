package main

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func sample(elapsed time.Duration) view {
	return view{
		what: "tunnel", got: 50e6, size: 200e6, rate: 74.9e6, elapsed: elapsed,
		links: []linkView{{"wifi", "up", 46.8e6, 50e6}, {"lte", "suspect", 0, 30e6}},
	}
}

func TestPlainLinesComeEveryTwoSeconds(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out}
	begin := time.Unix(1000, 0)
	for elapsed := 200 * time.Millisecond; elapsed < 7*time.Second; elapsed += 200 * time.Millisecond {
		s.show(begin.Add(elapsed), sample(elapsed))
	}
	s.say("news")
	s.last(sample(7 * time.Second))
	const line = "  tunnel  25 %%    50.0 of 200 MB   74.9 Mbit/s    %s s  wifi 46.8 (up)  lte  0.0 (suspect)\n"
	want := fmt.Sprintf(line+line+line+"news\n"+line, "2.0", "4.0", "6.0", "7.0")
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", &out, want)
	}
}

func TestTerminalBlockIsRefreshedInPlace(t *testing.T) {
	var out bytes.Buffer
	s := &screen{out: &out, terminal: true, columns: func() int { return 80 }}
	take := func() string { defer out.Reset(); return out.String() }
	block := "  tunnel  25 %    50.0 of 200 MB   74.9 Mbit/s    2.0 s\n" +
		"  wifi   [#####################################...] 46.8 of 50 Mbit/s  up\n" +
		"  lte    [........................................]  0.0 of 30 Mbit/s  suspect\n"
	const back = "\x1b[3F\x1b[J"
	v := sample(2 * time.Second)
	for i, step := range []struct {
		do   func()
		want string
	}{
		{func() { s.say("hello") }, "hello\n"},
		{func() { s.show(time.Unix(1, 0), v) }, block},
		{func() { s.show(time.Unix(2, 0), v) }, back + block},
		{func() { s.say("news") }, back + "news\n"},
		{func() { s.show(time.Unix(3, 0), v) }, block},
		{func() { s.last(v) }, back + block},
		{func() { s.say("bye") }, "bye\n"},
	} {
		if step.do(); out.String() != step.want {
			t.Errorf("step %d: got %q, want %q", i, out.String(), step.want)
		}
		take()
	}
	s.columns = func() int { return 30 }
	s.show(time.Unix(4, 0), v)
	for _, line := range strings.Split(strings.TrimSpace(take()), "\n") {
		if len(line) > 29 {
			t.Errorf("a line of %d characters wraps at 30 columns: %q", len(line), line)
		}
	}
}

func TestBar(t *testing.T) {
	for part, full := range map[float64]int{-1: 0, 0: 0, 0.5: 20, 1: 40, 1.3: 40} {
		if got, want := bar(part), strings.Repeat("#", full)+strings.Repeat(".", 40-full); got != want {
			t.Errorf("bar(%v) = %q, want %q", part, got, want)
		}
	}
}

func TestFileIsNoTerminal(t *testing.T) {
	f, err := os.Create(t.TempDir() + "/out")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if s := newScreen(f); s.terminal || columnsOf(f) != 80 {
		t.Error("a file is taken for a terminal")
	}
}
