package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// MaxReply is the longest reply that a client takes, in bytes.
const MaxReply = 16 << 20

// ErrNoAgent means that nothing answers on the control socket.
var ErrNoAgent = errors.New("no agent is running")

// Fetch returns the status of the agent whose control socket is path. Without
// a deadline in ctx it gives up after twice the server's patience.
func Fetch(ctx context.Context, path string) (Status, error) {
	raw, err := Call(ctx, path, "status")
	if err != nil {
		return Status{}, err
	}
	var status Status
	if err := json.Unmarshal(raw, &status); err != nil {
		return Status{}, fmt.Errorf("status from %s: %w", path, err)
	}
	return status, nil
}

// Call sends one request line, without its newline, and returns the result.
// An error that the agent reports is returned as its text.
func Call(ctx context.Context, path, request string) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, 2*Patience)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, dialError(path, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	// A server that refuses has already replied and closed: its word counts,
	// not the failed write.
	_, writeErr := io.WriteString(conn, request+"\n")
	line, readErr := io.ReadAll(io.LimitReader(conn, MaxReply+1))
	if len(line) == 0 && ctx.Err() != nil {
		return nil, fmt.Errorf("the agent on %s gives no reply in time: it hangs, or the machine is overloaded (%w)", path, ctx.Err())
	}
	if len(line) == 0 {
		return nil, fmt.Errorf("the agent on %s gives no reply: %w", path, errors.Join(ctx.Err(), writeErr, readErr, io.ErrUnexpectedEOF))
	}
	return decode(path, line)
}

func decode(path string, line []byte) (json.RawMessage, error) {
	if len(line) > MaxReply {
		return nil, fmt.Errorf("the agent on %s sends a reply of more than %d bytes", path, MaxReply)
	}
	var r reply
	if err := json.Unmarshal(line, &r); err != nil {
		return nil, fmt.Errorf("the agent on %s sends no valid reply: %w", path, err)
	}
	if r.Error != "" {
		return nil, fmt.Errorf("the agent on %s says: %s", path, r.Error)
	}
	return r.Result, nil
}

func dialError(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ECONNREFUSED):
		return fmt.Errorf("%w: nothing answers on %s", ErrNoAgent, path)
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("control socket %s: %w: run as root or as the agent's user", path, fs.ErrPermission)
	}
	return fmt.Errorf("control socket: %w", err)
}
