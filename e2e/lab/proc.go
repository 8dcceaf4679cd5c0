package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Proc is a process that the lab started. Its output goes to the file Log.
type Proc struct {
	Log  string
	name string
	cmd  *exec.Cmd
	done chan struct{} // closed when it has ended and err is set
	err  error
}

// stopGrace is how long a process may take to end on SIGTERM. An agent runs
// iptables some 60 times to undo what it did to the host, which takes seconds
// while others keep the processors busy.
const stopGrace = 20 * time.Second

// execLimit bounds Exec.
const execLimit = 2 * time.Minute

// Start runs a program in a node's namespace until it ends, is stopped, or the lab is
// closed. Standard output and error go to one log file in the lab's directory. /sys
// still shows the root namespace's interfaces; netlink, /proc/sys and ioctls do not.
func (l *Lab) Start(node string, argv ...string) (*Proc, error) {
	if len(argv) == 0 {
		return nil, errors.New("start: no program given")
	}
	return l.StartCmd(node, exec.Command(argv[0], argv[1:]...))
}

// StartCmd is Start for a prepared command, with its environment and directory. Output
// that the command does not direct elsewhere goes to the log file.
func (l *Lab) StartCmd(node string, cmd *exec.Cmd) (*Proc, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil, fmt.Errorf("start %s: lab %s is closed", cmd.Path, l.spec.Name)
	}
	name := fmt.Sprintf("%03d-%s-%s", len(l.procs)+1, canonical(node), filepath.Base(cmd.Path))
	p := &Proc{Log: filepath.Join(l.dir, name+".log"), name: name, cmd: cmd, done: make(chan struct{})}
	log, err := os.Create(p.Log)
	if err != nil {
		return nil, err
	}
	defer log.Close() // the child has its own descriptor
	if cmd.Stdout == nil {
		cmd.Stdout = log
	}
	if cmd.Stderr == nil {
		cmd.Stderr = log
	}
	// A session of its own, so that its children end with it, and without a terminal, as
	// under systemd.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := l.Do(node, cmd.Start); err != nil {
		return nil, fmt.Errorf("start %s on %s: %w", cmd.Path, node, err)
	}
	l.procs = append(l.procs, p)
	go p.reap()
	return p, nil
}

// Exec runs a program in a node's namespace to its end (at most two minutes) and
// returns what it wrote to standard output. The error holds its standard error.
func (l *Lab) Exec(node string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), execLimit)
	defer cancel()
	return l.ExecContext(ctx, node, argv...)
}

// ExecContext is Exec that kills the program when the context ends.
func (l *Lab) ExecContext(ctx context.Context, node string, argv ...string) (string, error) {
	if len(argv) == 0 {
		return "", errors.New("exec: no program given")
	}
	var out, errOut bytes.Buffer
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = &out, &errOut
	cmd.WaitDelay = time.Second // a grandchild may keep the pipes open
	p, err := l.StartCmd(node, cmd)
	if err != nil {
		return "", err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.Kill()
		return out.String(), fmt.Errorf("%s on %s: %w", argv[0], node, ctx.Err())
	}
	if p.err != nil {
		return out.String(), fmt.Errorf("%s on %s: %w: %s", argv[0], node, p.err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

func (p *Proc) reap() {
	p.err = p.cmd.Wait()
	close(p.done)
}

// Pid returns the process id.
func (p *Proc) Pid() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Proc) Done() <-chan struct{} { return p.done }

// Wait waits for the process to end, at most the given time, and returns how it ended.
func (p *Proc) Wait(limit time.Duration) error {
	select {
	case <-p.done:
		return p.err
	case <-time.After(limit):
		return fmt.Errorf("%s has not ended within %v", p.name, limit)
	}
}

// Signal sends a signal to the process alone, not to its children.
func (p *Proc) Signal(s os.Signal) error { return p.cmd.Process.Signal(s) }

// Stop asks the process to end (SIGTERM) and kills it and its children when it takes
// longer than stopGrace. It returns how the process ended.
func (p *Proc) Stop() error {
	select {
	case <-p.done:
		return p.err
	default:
	}
	p.Signal(syscall.SIGTERM)
	if endsWithin(p.done, stopGrace) {
		return p.err
	}
	p.Signal(syscall.SIGQUIT) // a Go program logs what its goroutines wait for
	endsWithin(p.done, time.Second)
	p.Kill()
	return fmt.Errorf("%s did not end on SIGTERM and was killed", p.name)
}

// Kill ends the process and its children at once (SIGKILL) and waits for its end.
func (p *Proc) Kill() {
	select {
	case <-p.done:
		return // the number may belong to another process by now
	default:
	}
	syscall.Kill(-p.Pid(), syscall.SIGKILL)
	<-p.done
}

// endsWithin waits for the channel, at most d, and tells whether it was closed.
func endsWithin(done <-chan struct{}, d time.Duration) bool {
	select {
	case <-done:
		return true
	case <-time.After(d):
		return false
	}
}

// Output returns what the process has written to its log so far.
func (p *Proc) Output() string {
	b, err := os.ReadFile(p.Log)
	if err != nil {
		return ""
	}
	return string(b)
}

// WaitFor waits until the log holds text. It fails when the process ends first or the
// time is over; the error holds the last lines of the log.
func (p *Proc) WaitFor(text string, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		ended := endsWithin(p.done, 10*time.Millisecond)
		out := p.Output()
		switch {
		case strings.Contains(out, text):
			return nil
		case ended:
			return fmt.Errorf("%s ended (%v) before it said %q:\n%s", p.name, p.err, text, tail(out))
		case time.Now().After(deadline):
			return fmt.Errorf("%s did not say %q within %v:\n%s", p.name, text, limit, tail(out))
		}
	}
}

// tail returns the last 2000 bytes.
func tail(s string) string { return s[max(0, len(s)-2000):] }

// CPU returns the processor time that the process and its ended children have used,
// in user and in kernel mode, to 10 ms.
func (p *Proc) CPU() (user, system time.Duration, err error) {
	select {
	case <-p.done:
		s := p.cmd.ProcessState
		return s.UserTime(), s.SystemTime(), nil
	default:
	}
	return cpuOf(p.Pid())
}

// cpuOf reads utime and stime with the children's of proc(5), in ticks of 1/100 s.
func cpuOf(pid int) (user, system time.Duration, err error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, 0, err
	}
	// The command may hold spaces; fields are counted from its closing bracket.
	_, rest, _ := strings.Cut(string(b[bytes.LastIndexByte(b, ')'):]), " ")
	var skip string
	var u, s, cu, cs int64
	if _, err := fmt.Sscan(rest, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &skip, &u, &s, &cu, &cs); err != nil {
		return 0, 0, fmt.Errorf("stat of %d: %w", pid, err)
	}
	const tick = 10 * time.Millisecond
	return time.Duration(u+cu) * tick, time.Duration(s+cs) * tick, nil
}
