package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// view is what a running download looks like at one moment.
type view struct {
	what    string // "tunnel" or "direct"
	got     int64
	size    int64
	rate    float64 // bit/s
	elapsed time.Duration
	links   []linkView
}

// linkView is one uplink in a view.
type linkView struct {
	name  string
	state string
	rate  float64 // bit/s
	limit float64 // bit/s of the emulated line
}

// plainEvery is how often a line is written where none can be refreshed.
const plainEvery = 2 * time.Second

// screen writes the demo's output. On a terminal a running download is a block
// of lines that is refreshed in place; elsewhere it is a plain line every two
// seconds.
type screen struct {
	out      io.Writer
	terminal bool
	columns  func() int
	drawn    int       // lines of the block on the terminal
	plain    time.Time // when the next plain line is due; zero before the first view
}

// newScreen finds out what the file is.
func newScreen(f *os.File) *screen {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return &screen{
		out: f, terminal: err == nil && os.Getenv("TERM") != "dumb",
		columns: func() int { return columnsOf(f) },
	}
}

// columnsOf returns a terminal's width, 80 when it does not know.
func columnsOf(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || size.Col == 0 {
		return 80
	}
	return int(size.Col)
}

// say writes lines that stay, above the block.
func (s *screen) say(format string, args ...any) {
	fmt.Fprintf(s.out, s.erase()+format+"\n", args...)
}

// show brings the running download up to date.
func (s *screen) show(now time.Time, v view) {
	switch {
	case s.terminal:
		s.draw(v)
	case s.plain.IsZero():
		s.plain = now.Add(plainEvery - v.elapsed)
	case !now.Before(s.plain):
		s.plain = s.plain.Add(plainEvery)
		fmt.Fprintln(s.out, v.line())
	}
}

// last shows a download that has ended, and leaves it on the screen.
func (s *screen) last(v view) {
	if s.terminal {
		s.draw(v)
	} else {
		fmt.Fprintln(s.out, v.line())
	}
	s.drawn, s.plain = 0, time.Time{}
}

// draw replaces the block. Lines are cut at the terminal's width, because one
// that wraps could not be erased.
func (s *screen) draw(v view) {
	lines := v.block()
	text := s.erase()
	width := s.columns() - 1
	for _, line := range lines {
		text += line[:min(len(line), max(width, 1))] + "\n"
	}
	s.drawn = len(lines)
	fmt.Fprint(s.out, text)
}

// erase returns what moves the cursor to the block's first line and clears
// from there on (ECMA-48: CPL, ED).
func (s *screen) erase() string {
	if s.drawn == 0 {
		return ""
	}
	text := fmt.Sprintf("\x1b[%dF\x1b[J", s.drawn)
	s.drawn = 0
	return text
}

// progress is the line with percent, rate and time.
func (v view) progress() string {
	return fmt.Sprintf("  %-6s %3d %%  %6.1f of %.0f MB  %5.1f Mbit/s  %5.1f s", v.what,
		100*v.got/v.size, float64(v.got)/megabyte, float64(v.size)/megabyte, v.rate/1e6, v.elapsed.Seconds())
}

// line is the whole view in one line.
func (v view) line() string {
	var b strings.Builder
	b.WriteString(v.progress())
	for _, l := range v.links {
		fmt.Fprintf(&b, "  %s %4.1f (%s)", l.name, l.rate/1e6, l.state)
	}
	return b.String()
}

// block is the progress line and a bar per link.
func (v view) block() []string {
	lines := []string{v.progress()}
	for _, l := range v.links {
		lines = append(lines, fmt.Sprintf("  %-6s [%s] %4.1f of %2.0f Mbit/s  %s", l.name, bar(l.rate/l.limit), l.rate/1e6, l.limit/1e6, l.state))
	}
	return lines
}

// barWidth lets a link's line fit into 80 columns.
const barWidth = 40

// bar draws a part of 1.
func bar(part float64) string {
	full := min(max(int(part*barWidth+0.5), 0), barWidth)
	return strings.Repeat("#", full) + strings.Repeat(".", barWidth-full)
}
