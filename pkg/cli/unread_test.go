package cli

import (
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fill leaves no room in a pipe, and returns what it has put there.
func fill(t *testing.T, pipe *os.File) (filled int) {
	t.Helper()
	conn, err := pipe.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for piece := make([]byte, unreadPiece); err == nil; {
		n := 0
		if failed := conn.Control(func(fd uintptr) { n, err = unix.Write(int(fd), piece) }); failed != nil {
			t.Fatal(failed)
		}
		filled += max(n, 0)
	}
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
	return filled
}

// TestUnreadLog: who logs never waits for who reads, and what was lost is told.
func TestUnreadLog(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	u := &unread{file: w, note: func(lines int) []byte { return fmt.Appendf(nil, "lost %d\n", lines) }}
	read := func(n int) string {
		b := make([]byte, n)
		if _, err := io.ReadFull(r, b); err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	for round := range 2 {
		filled := fill(t, w)
		for range 3 {
			fmt.Fprintln(u, "a line")
		}
		read(filled)
		long := strings.Repeat("long", 5000) + "\n"
		_, _ = io.WriteString(u, long)
		if got, want := read(len("lost 3\n"+long)), "lost 3\n"+long; got != want {
			t.Errorf("round %d: %d bytes are there, want %d: %.80q", round, len(got), len(want), got)
		}
	}
	if fmt.Fprintln(u, "a line"); read(7) != "a line\n" {
		t.Error("told again")
	}
}

// TestAgentEndsWhileNobodyReads: an agent whose log hangs works and ends in order.
func TestAgentEndsWhileNobodyReads(t *testing.T) {
	b := newBench(t)
	cmd, log := b.prepare("tidy")
	filled := fill(t, cmd.Stderr.(*os.File))
	b.begin(cmd)
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(b.path("edge.sock.begun")); err == nil {
			break
		}
		if time.Now().After(end) {
			_ = cmd.Process.Kill()
			t.Fatal("it does not begin")
		}
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("it ended by %v", err)
		}
	case <-time.After(time.Minute):
		_ = cmd.Process.Kill()
		t.Error("it does not end")
	}
	if _, err := os.Stat(b.path("edge.sock.clean")); err != nil {
		t.Errorf("it has not cleaned up: %v", err)
	}
	if _, err := io.CopyN(io.Discard, log, int64(filled)); err != nil {
		t.Error(err)
	}
}
