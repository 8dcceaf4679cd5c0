package cli

import (
	"bufio"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestHangup: without a terminal SIGHUP has the configuration read again. A wrong one or the
// same does nothing to the running agent. Another one it takes over if it can, else it starts
// anew; the old one ends in order first.
func TestHangup(t *testing.T) {
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGHUP) // else who is run by nohup has children that hear none, either
	defer signal.Stop(heard)
	b := newBench(t)
	cmd, log := b.prepare("tidy")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // which leaves the terminal
	b.begin(cmd)
	limit := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	lines := bufio.NewScanner(log)
	want := func(text string) {
		t.Helper()
		for lines.Scan() {
			if strings.Contains(lines.Text(), text) {
				return
			}
			if strings.Contains(lines.Text(), "edge runs") || strings.Contains(lines.Text(), "edge stops") {
				t.Fatalf("%q before %q", lines.Text(), text)
			}
		}
		t.Fatalf("the log ends without %q: %v", text, cmd.Wait())
	}
	hangup := func() {
		if err := cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	good, err := os.ReadFile(b.path("edge.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	write := func(text string) {
		if err := os.WriteFile(b.path("edge.yaml"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want("edge runs")
	write(string(good) + "nonsense: 1\n")
	hangup()
	want("the agent goes on with the former one")
	write(string(good) + "# a comment\n")
	hangup()
	want("is as it was: the agent goes on")
	write(string(good) + "name: impossible\n")
	hangup()
	want("goes on with the former one\" error=\"name: there is no such host\"")
	write(string(good) + "name: other\n")
	hangup()
	want("goes on by the new one\" file=" + b.path("edge.yaml") + " taken_over=name")
	hangup()
	want("is as it was: the agent goes on")
	write(string(good) + "memory: 256MiB\n")
	hangup()
	for _, text := range []string{"the agent starts anew", "edge stops", "edge runs"} {
		want(text)
	}
	write(string(good))
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	want("edge stops")
	_, _ = io.Copy(io.Discard, log)
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended by %v", err)
	}
}
