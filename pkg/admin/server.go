package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of the control socket.
const (
	MaxClients = 16              // served at once; the next is told to come again
	MaxRequest = 4 << 10         // bytes of a request line
	Patience   = 5 * time.Second // for a client to send its line and take the reply
)

// Command answers one kind of request. It runs on a goroutine of its own, and
// ctx ends with the client's patience or the server. The result is encoded as
// JSON.
type Command func(ctx context.Context, args []string) (any, error)

// Server is an agent's control socket. Its fields are set before Listen or Run
// and not changed after.
type Server struct {
	Path     string             // of the socket
	Source   func() Status      // the current status, the caller's to change; prompt; called from several goroutines
	Commands map[string]Command // further commands by name; may be nil

	listener *net.UnixListener
	file     fs.FileInfo // the socket file, to remove no other
}

// Listen binds the socket, so that an agent learns before it touches the host
// that another one is running (ErrRunning). The socket file stays until Run
// has ended or Close was called.
func (s *Server) Listen() error {
	if s.listener != nil {
		return nil
	}
	listener, err := bind(s.Path)
	if err != nil {
		return err
	}
	s.listener = listener
	s.file, _ = os.Lstat(s.Path)
	return nil
}

// Close undoes Listen when Run will not be called.
func (s *Server) Close() {
	if s.listener == nil {
		return
	}
	unlink(s.Path, s.file)
	s.listener.Close()
	s.listener = nil
}

// Run serves clients until ctx ends, and then returns nil. It calls Listen if
// that has not been done. The socket file is removed at the end.
func (s *Server) Run(ctx context.Context) error {
	if err := s.Listen(); err != nil {
		return err
	}
	listener := s.listener
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	defer func() {
		cancel()
		running.Wait()
		s.listener = nil
	}()
	running.Add(1)
	go s.stop(ctx, &running, listener)
	slots := make(chan struct{}, MaxClients)
	for {
		conn, err := listener.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("control socket: %w", err)
		case err != nil:
			// No descriptors left, most likely: others may give some back.
			pause(ctx, 100*time.Millisecond)
			continue
		}
		select {
		case slots <- struct{}{}:
			running.Add(1)
			go s.serve(ctx, &running, conn, slots)
		default:
			refuse(conn)
		}
	}
}

// stop ends the accept loop. The file goes first: a connection to a name that
// is still there must not be refused while a new agent may not yet bind it.
func (s *Server) stop(ctx context.Context, running *sync.WaitGroup, listener *net.UnixListener) {
	defer running.Done()
	<-ctx.Done()
	unlink(s.Path, s.file)
	listener.Close()
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// refuse answers a client beyond the bound. The reply fits the socket's
// buffer, so this does not block the accept loop.
func refuse(conn *net.UnixConn) {
	_ = conn.SetDeadline(time.Now().Add(100 * time.Millisecond))
	_, _ = conn.Write(encode(nil, errors.New("too many clients at once: try again")))
	conn.Close()
}

// serve answers one client's request.
func (s *Server) serve(ctx context.Context, running *sync.WaitGroup, conn net.Conn, slots <-chan struct{}) {
	defer running.Done()
	defer func() { <-slots }()
	defer conn.Close()
	ctx, cancel := context.WithTimeout(ctx, Patience)
	defer cancel()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	line, err := bufio.NewReader(io.LimitReader(conn, MaxRequest)).ReadSlice('\n')
	if len(line) == 0 && err != nil {
		return // a probe: somebody looked whether an agent is running
	}
	var result any
	if err == nil || errors.Is(err, io.EOF) && len(line) < MaxRequest {
		result, err = s.answer(ctx, line)
	} else {
		err = fmt.Errorf("a request is one line of at most %d bytes", MaxRequest)
	}
	_, _ = conn.Write(encode(result, err))
}

// answer runs the command that the request line names.
func (s *Server) answer(ctx context.Context, line []byte) (any, error) {
	name, args, err := parseRequest(line)
	if err != nil {
		return nil, err
	}
	if name == "status" && len(args) == 0 {
		now := time.Now()
		return s.Source().by(now, now.Round(0)), nil
	}
	if name == "status" {
		return nil, errors.New("status takes no arguments")
	}
	if command, ok := s.Commands[name]; ok {
		return command(ctx, args)
	}
	known := slices.Sorted(maps.Keys(s.Commands))
	return nil, fmt.Errorf("unknown command %q: known are %s", name, strings.Join(append([]string{"status"}, known...), ", "))
}

// maxArgs bounds the words after the command's name: a hint is JSON, which some programs
// write with blanks between all its parts.
const maxArgs = 32

// parseRequest splits a request line into the command's name and its
// arguments. Words are printable ASCII, separated by blanks.
func parseRequest(line []byte) (name string, args []string, err error) {
	for _, c := range line {
		if (c < ' ' || c > '~') && c != '\t' && c != '\r' && c != '\n' {
			return "", nil, errors.New("a request is one line of printable ASCII")
		}
	}
	words := strings.Fields(string(line))
	switch {
	case len(words) == 0:
		return "", nil, errors.New("empty request: send a command such as status")
	case len(words) > maxArgs+1:
		return "", nil, fmt.Errorf("a request has at most %d arguments", maxArgs)
	case len(words[0]) > 32:
		return "", nil, errors.New("a command's name has at most 32 characters")
	}
	return words[0], words[1:], nil
}

// reply is what the server sends: one of the two.
type reply struct {
	Result json.RawMessage `json:"result,omitempty"`
	Error  string          `json:"error,omitempty"`
}

// encode makes the reply line.
func encode(result any, failed error) []byte {
	var r reply
	if failed == nil {
		r.Result, failed = json.Marshal(result)
	}
	if failed != nil {
		r = reply{Error: strings.Join(strings.Fields(failed.Error()), " ")}
		if r.Error == "" {
			r.Error = "failed without saying why"
		}
	}
	line, err := json.Marshal(r)
	if err != nil { // cannot happen: both fields are encoded already
		return []byte("{\"error\":\"reply cannot be encoded\"}\n")
	}
	return append(line, '\n')
}
