package emu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Request is one line of the control protocol, a JSON object. Op is "status" (Path may
// narrow it to one path), "forget" (the same, and the lateness counters begin anew) or "set", which needs Path, Dir ("up", "down", "both"; empty is
// both) and Params: an object that holds only the fields to change.
type Request struct {
	Op     string          `json:"op"`
	Path   string          `json:"path,omitempty"`
	Dir    Direction       `json:"dir,omitempty"`
	Params json.RawMessage `json:"params,omitempty"`
}

// Response is the line that answers a request. Error is empty on success; Paths holds
// the status of the paths that the request named, after the change.
type Response struct {
	Error string       `json:"error,omitempty"`
	Paths []PathStatus `json:"paths,omitempty"`
}

// PathStatus is the reading of one path.
type PathStatus struct {
	Name string          `json:"name"`
	Up   DirectionStatus `json:"up"`
	Down DirectionStatus `json:"down"`
}

// DirectionStatus is the reading of one direction.
type DirectionStatus struct {
	Params   Params   `json:"params"`
	Counters Counters `json:"counters"`
}

// command asks the pump to run do between two passes.
type command struct {
	do   func(now time.Duration)
	done chan struct{}
}

var errEnded = errors.New("the emulator has ended")

// ask runs do in the pump and waits for its end.
func (e *Emulator) ask(do func(now time.Duration)) error {
	c := command{do: do, done: make(chan struct{})}
	select {
	case e.commands <- c:
	case <-e.done:
		return errEnded
	}
	e.waiter.poke()
	select {
	case <-c.done:
		return nil
	case <-e.done:
		return errEnded
	}
}

// obey runs the waiting commands.
func (e *Emulator) obey(now time.Duration) {
	for {
		select {
		case c := <-e.commands:
			c.do(now)
			close(c.done)
		default:
			return
		}
	}
}

// Status returns the reading of the named path, or of all paths if name is empty. Run
// must be running.
func (e *Emulator) Status(name string) ([]PathStatus, error) {
	if name != "" && e.find(name) == nil {
		return nil, fmt.Errorf("there is no path %q", name)
	}
	var all []PathStatus
	err := e.ask(func(now time.Duration) {
		for _, p := range e.paths {
			if name == "" || p.name == name {
				all = append(all, PathStatus{Name: p.name, Up: p.up.status(now), Down: p.down.status(now)})
			}
		}
	})
	return all, err
}

// forget begins the lateness counters of the named path, or of all, anew.
func (e *Emulator) forget(name string) error {
	if name != "" && e.find(name) == nil {
		return fmt.Errorf("there is no path %q", name)
	}
	return e.ask(func(time.Duration) {
		for _, p := range e.paths {
			if name == "" || p.name == name {
				p.up.model.late, p.down.model.late = lateness{}, lateness{}
			}
		}
	})
}

// Set changes the fields that the JSON object patch holds, in one or both directions
// of a path. Both directions change between the same two packets. Run must be running.
func (e *Emulator) Set(name string, dir Direction, patch []byte) error {
	p := e.find(name)
	switch {
	case p == nil:
		return fmt.Errorf("there is no path %q", name)
	case dir != Up && dir != Down && dir != Both:
		return fmt.Errorf("dir: %q is none of up, down, both", dir)
	}
	// Files are read here and not in the pump, which must not wait.
	changes, err := e.prepare(p, dir, patch)
	if err != nil {
		return fmt.Errorf("path %s: %w", name, err)
	}
	return e.ask(func(now time.Duration) {
		for _, c := range changes {
			c.way.trace = c.trace
			c.way.model.Set(now, c.params, c.trace)
		}
	})
}

// change is a checked change of one direction.
type change struct {
	way    *way
	params Params
	trace  *Trace
}

func (e *Emulator) prepare(p *path, dir Direction, patch []byte) ([]change, error) {
	var changes []change
	if err := e.ask(func(time.Duration) {
		for _, w := range p.ways(dir) {
			changes = append(changes, change{w, w.model.Params(), w.trace})
		}
	}); err != nil {
		return nil, err
	}
	for i := range changes {
		c := &changes[i]
		before := c.params.Trace
		if err := json.Unmarshal(patch, &c.params); err != nil {
			return nil, err
		}
		if c.params.Trace == before {
			if err := c.params.Validate(); err != nil {
				return nil, err
			}
			continue // the trace runs on
		}
		var err error
		if c.trace, err = traceOf(c.params); err != nil {
			return nil, err
		}
	}
	return changes, nil
}

// ServeControl answers control connections until ctx ends, then closes the listener
// and all connections and waits for their goroutines.
func (e *Emulator) ServeControl(ctx context.Context, l net.Listener) error {
	var conversations sync.WaitGroup
	defer conversations.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(ctx, func() { l.Close() })()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("control socket: %w", err)
		}
		conversations.Add(1)
		go e.converse(ctx, conn, conversations.Done)
	}
}

// converse answers the lines of one connection.
func (e *Emulator) converse(ctx context.Context, conn net.Conn, done func()) {
	defer done()
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	lines := bufio.NewScanner(conn)
	answer := json.NewEncoder(conn)
	for lines.Scan() {
		if err := answer.Encode(e.answer(lines.Bytes())); err != nil {
			return
		}
	}
}

func (e *Emulator) answer(line []byte) Response {
	var req Request
	err := json.Unmarshal(line, &req)
	if err == nil && req.Dir == "" {
		req.Dir = Both
	}
	switch {
	case err != nil:
		err = fmt.Errorf("request: %w", err)
	case req.Op == "set":
		err = e.Set(req.Path, req.Dir, req.Params)
	case req.Op == "forget":
		err = e.forget(req.Path)
	case req.Op != "status":
		err = fmt.Errorf("op: %q is none of status, forget, set", req.Op)
	}
	if err != nil {
		return Response{Error: err.Error()}
	}
	paths, err := e.Status(req.Path)
	if err != nil {
		return Response{Error: err.Error()}
	}
	return Response{Paths: paths}
}
