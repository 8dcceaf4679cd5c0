package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"hawser/e2e/lab"
)

const (
	// crowdPort is the first port of the crowd's servers.
	crowdPort = 81
	// crowdShare is how many connections one process of the crowd holds: fewer
	// than limits.open_per_client, as each has an address of its own.
	crowdShare = 16_000
	// crowdLimit bounds the time to open all connections.
	crowdLimit = 2 * time.Minute
)

// crew is the processes that hold a crowd's connections: servers at the
// origin, clients on the client nodes. A process ends when its standard input
// does.
type crew struct {
	members []*member
}

// member is one process.
type member struct {
	in  io.WriteCloser
	out *bufio.Reader
	err *lab.Proc
}

// enlist starts a member on a node.
func (c *crew) enlist(l *lab.Lab, node string, args ...string) (*member, error) {
	bin, err := lab.Binary("hawser/e2e/crowd/hawser-crowd")
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(bin, args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	pr, pw := io.Pipe()
	cmd.Stdout = pw
	p, err := l.StartCmd(node, cmd)
	if err != nil {
		return nil, err
	}
	m := &member{in: in, out: bufio.NewReader(pr), err: p}
	go m.hangUp(pw)
	c.members = append(c.members, m)
	return m, nil
}

// hangUp ends the reading of a member that has ended.
func (m *member) hangUp(pw *io.PipeWriter) {
	<-m.err.Done()
	pw.Close()
}

// hear returns the words of the member's next line, which must begin with want.
func (m *member) hear(want string) ([]string, error) {
	line, err := m.out.ReadString('\n')
	words := strings.Fields(line)
	if err != nil || len(words) == 0 || words[0] != want {
		return nil, fmt.Errorf("crowd said %q, not %s: %w: %s", line, want, err, m.err.Output())
	}
	return words[1:], nil
}

// dismiss ends the processes and waits for them.
func (c *crew) dismiss() error {
	var errs []error
	for _, m := range c.members {
		if err := m.in.Close(); !errors.Is(err, os.ErrClosed) { // it is when the process has ended
			errs = append(errs, err)
		}
	}
	for _, m := range c.members {
		_, _ = io.Copy(io.Discard, m.out)
		errs = append(errs, m.err.Wait(30*time.Second))
	}
	c.members = nil
	return errors.Join(errs...)
}

// servers starts n servers at the origin and returns where they listen: on a
// port each, or all on the same one.
func (w *world) servers(n int, port func(i int) int, args ...string) (*crew, []netip.AddrPort, error) {
	c := &crew{}
	var at []netip.AddrPort
	for i := range n {
		a := netip.AddrPortFrom(w.Address("origin", lab.IPv4), uint16(port(i)))
		m, err := c.enlist(w.Lab, "origin", append([]string{"serve", "-at", a.String()}, args...)...)
		if err == nil {
			_, err = m.hear("listening")
		}
		if err != nil {
			return nil, nil, errors.Join(err, c.dismiss())
		}
		at = append(at, a)
	}
	return c, at, nil
}

// ownPort gives each server a port of its own, samePort all the direct one.
func ownPort(i int) int { return crowdPort + i }

// clients opens conns connections to the servers, in processes on all client
// nodes, and returns when all stand.
func (w *world) clients(conns int, to []netip.AddrPort, args ...string) (*crew, error) {
	c := &crew{}
	n := (conns + crowdShare - 1) / crowdShare
	list := make([]string, len(to))
	for i, a := range to {
		list[i] = a.String()
	}
	for i := range n {
		share := conns*(i+1)/n - conns*i/n
		node := "client" + strconv.Itoa(i%w.clientNodes+1)
		_, err := c.enlist(w.Lab, node, append([]string{"hold", "-to", strings.Join(list, ","),
			"-conns", strconv.Itoa(share), "-limit", crowdLimit.String()}, args...)...)
		if err != nil {
			return nil, errors.Join(err, c.dismiss())
		}
	}
	for _, m := range c.members {
		if _, err := m.hear("open"); err != nil {
			return nil, errors.Join(err, c.dismiss())
		}
	}
	return c, nil
}
