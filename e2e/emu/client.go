package emu

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Client steers a running emulator through its control socket. It is safe for
// concurrent use.
type Client struct {
	mu   sync.Mutex
	conn net.Conn
	in   *bufio.Reader
}

// Dial connects to the control socket with the given file name.
func Dial(socket string) (*Client, error) {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("emulator: %w", err)
	}
	return &Client{conn: conn, in: bufio.NewReader(conn)}, nil
}

// Close ends the connection; the emulator runs on.
func (c *Client) Close() error { return c.conn.Close() }

// Change sets one parameter; make one with SetRate and its siblings.
type Change struct {
	field string
	value any
}

// Value returns what the change sets the parameter of that name (as in the
// control protocol) to, nil if it is another one's.
func (c Change) Value(field string) any {
	if c.field != field {
		return nil
	}
	return c.value
}

// SetRate sets the rate in bit/s, 0 for unlimited. A trace must be cleared first.
func SetRate(bps int64) Change { return Change{"rate", bps} }

// SetDelay sets the one-way delay.
func SetDelay(d time.Duration) Change { return Change{"delay", d.String()} }

// SetJitter sets the jitter.
func SetJitter(d time.Duration) Change { return Change{"jitter", d.String()} }

// SetReorder lets jitter reorder packets, or not.
func SetReorder(on bool) Change { return Change{"reorder", on} }

// SetQueueBytes bounds the queue in bytes; 0 clears the bound.
func SetQueueBytes(n int) Change { return Change{"queue_bytes", n} }

// SetQueueTime bounds the queue in time at the link's rate; 0 clears the bound.
func SetQueueTime(d time.Duration) Change { return Change{"queue", d.String()} }

// SetLoss sets the probability of random loss.
func SetLoss(p float64) Change { return Change{"loss", p} }

// SetBurst sets the bursty loss process.
func SetBurst(b Burst) Change { return Change{"burst", b} }

// SetTrace replaces the rate by a trace file; an empty name goes back to the rate.
func SetTrace(file string) Change { return Change{"trace", file} }

// SetTraceScale multiplies the bytes of each delivery opportunity.
func SetTraceScale(f float64) Change { return Change{"trace_scale", f} }

// SetBlackhole cuts the direction silently, or restores it.
func SetBlackhole(on bool) Change { return Change{"blackhole", on} }

// Set applies the changes at once to one or both directions of a path.
func (c *Client) Set(path string, dir Direction, changes ...Change) error {
	patch := map[string]any{}
	for _, ch := range changes {
		patch[ch.field] = ch.value
	}
	params, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("emulator: %w", err)
	}
	_, err = c.call(Request{Op: "set", Path: path, Dir: dir, Params: params})
	return err
}

// Status returns the reading of one path.
func (c *Client) Status(path string) (PathStatus, error) {
	paths, err := c.call(Request{Op: "status", Path: path})
	if err != nil {
		return PathStatus{}, err
	}
	if len(paths) != 1 {
		return PathStatus{}, fmt.Errorf("emulator: %d paths answer to %q", len(paths), path)
	}
	return paths[0], nil
}

// Forget begins the lateness counters of a path anew.
func (c *Client) Forget(path string) error {
	_, err := c.call(Request{Op: "forget", Path: path})
	return err
}

func (c *Client) call(req Request) ([]PathStatus, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := json.NewEncoder(c.conn).Encode(req); err != nil {
		return nil, fmt.Errorf("emulator: %w", err)
	}
	line, err := c.in.ReadBytes('\n')
	if err != nil {
		return nil, fmt.Errorf("emulator: %w", err)
	}
	var resp Response
	if err := json.Unmarshal(line, &resp); err != nil {
		return nil, fmt.Errorf("emulator: %w", err)
	}
	if resp.Error != "" {
		return nil, errors.New("emulator: " + resp.Error)
	}
	return resp.Paths, nil
}
