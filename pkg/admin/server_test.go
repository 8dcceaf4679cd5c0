package admin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

func sample() Status {
	started := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	return Status{
		Role: "edge", Name: "train-7", Key: "AAEC=", Version: "0.1.0", Protocol: 1,
		Started: started, Uptime: 93784.5, Workers: 2,
		Card:   Card{Kind: "pool", Why: "configured", Workers: 1, Queue: 64, Window: 4},
		Memory: Memory{Used: 12 << 20, Peak: 40 << 20, Kept: 3 << 20, Budget: 256 << 20},
		Sessions: []Session{{
			Peer: "cloud", Key: "BBEC=", State: "up", Since: started.Add(time.Second), Protocol: 1,
			Links: []Link{
				{Name: "wifi", Interface: "wlan0", State: "up", Since: started.Add(25 * time.Hour), Transport: "tcp",
					Remote: "203.0.113.10:7443", RTT: 21.34, MinRTT: 9.876, RateUp: 1_200_000, RateDown: 45_100_000,
					BytesUp: 12 << 20, BytesDown: 3 << 30, InFlight: 64 << 10, Losses: 1, Reconnects: 2},
				{Name: "lte", Interface: "wwan0", State: "down", Remote: "203.0.113.10:7443", RateDown: 4_900_000, LastError: "dial:\x1b[31m refused"},
			},
			Flows:    Flows{Open: 3, Opened: 340, Refused: 2, Reset: 1},
			Counters: map[string]uint64{"duplicates": 7, "forged": 0},
		}},
		Counters: map[string]uint64{"syn_dropped": 5},
	}
}

// start runs a server on a new socket and stops it when the test ends.
func start(t *testing.T, s *Server) (stop func()) {
	t.Helper()
	if s.Path == "" {
		s.Path = filepath.Join(t.TempDir(), "run", "agent.sock")
	}
	if err := s.Listen(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	var once sync.Once
	stop = func() {
		once.Do(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run: %v", err)
			}
		})
	}
	t.Cleanup(stop)
	return stop
}

func TestFetch(t *testing.T) {
	s := &Server{Source: sample}
	stop := start(t, s)
	got, err := Fetch(t.Context(), s.Path)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, sample()) {
		t.Errorf("got  %+v\nwant %+v", got, sample())
	}
	info, err := os.Stat(s.Path)
	if err != nil || info.Mode() != fs.ModeSocket|0o600 {
		t.Errorf("socket file: %v, %v; want mode 0600", info.Mode(), err)
	}
	stop()
	if _, err := os.Lstat(s.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the socket file stays after Run: %v", err)
	}
	if _, err := Fetch(t.Context(), s.Path); !errors.Is(err, ErrNoAgent) {
		t.Errorf("Fetch without an agent: %v", err)
	}
}

func TestCommands(t *testing.T) {
	s := &Server{Source: sample, Commands: map[string]Command{
		"echo": func(_ context.Context, args []string) (any, error) { return args, nil },
		"fail": func(context.Context, []string) (any, error) { return nil, errors.New("two\nlines") },
		"bad":  func(context.Context, []string) (any, error) { return make(chan int), nil },
		"mute": func(context.Context, []string) (any, error) { return nil, errors.New("") },
	}}
	start(t, s)
	raw, err := Call(t.Context(), s.Path, "echo  a\tb ")
	var words []string
	if err == nil {
		err = json.Unmarshal(raw, &words)
	}
	if err != nil || !reflect.DeepEqual(words, []string{"a", "b"}) {
		t.Errorf("echo: %q, %v", words, err)
	}
	hint := `{ "link": "lte", "usable": true, "rate_up_kbit": 1, "rate_down_kbit": 2, "signal_dbm": -90, "position": [ 1.5, 2.5 ], "valid_s": 5 }`
	if _, err := Call(t.Context(), s.Path, "echo "+hint); err != nil {
		t.Errorf("a hint with blanks wherever JSON has them: %v", err)
	}
	for request, want := range map[string]string{
		"fail":                    "says: two lines",
		"bad":                     "says: json: unsupported type: chan int",
		"mute":                    "says: failed without saying why",
		"":                        "says: empty request: send a command such as status",
		"status all":              "says: status takes no arguments",
		"reboot now":              `says: unknown command "reboot": known are status, bad, echo, fail, mute`,
		"st\x00atus":              "says: a request is one line of printable ASCII",
		strings.Repeat("x ", 40):  "says: a request has at most 32 arguments",
		strings.Repeat("x", 40):   "says: a command's name has at most 32 characters",
		strings.Repeat("x", 5000): "says: a request is one line of at most 4096 bytes",
	} {
		_, err := Call(t.Context(), s.Path, request)
		if err == nil || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("%.20q: got %v, want %s", request, err, want)
		}
	}
}

func TestSecondAgent(t *testing.T) {
	first := &Server{Source: sample}
	start(t, first)
	second := &Server{Path: first.Path, Source: sample}
	if err := second.Run(t.Context()); !errors.Is(err, ErrRunning) {
		t.Errorf("a second agent on the socket: %v", err)
	}
	if removed, err := RemoveStale(first.Path); removed || !errors.Is(err, ErrRunning) {
		t.Errorf("RemoveStale under a running agent: %v, %v", removed, err)
	}
	if _, err := Fetch(t.Context(), first.Path); err != nil {
		t.Errorf("the first agent no longer answers: %v", err)
	}
}

// crash leaves a socket file as a killed agent does.
func crash(t *testing.T, path string) {
	t.Helper()
	l, err := bind(path)
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Fatalf("no stale file: %v", err)
	}
}

func TestStaleSocket(t *testing.T) {
	s := &Server{Path: filepath.Join(t.TempDir(), "agent.sock"), Source: sample}
	crash(t, s.Path)
	start(t, s)
	if _, err := Fetch(t.Context(), s.Path); err != nil {
		t.Error(err)
	}
}

func TestRemoveStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	crash(t, path)
	for _, want := range []bool{true, false} {
		if removed, err := RemoveStale(path); removed != want || err != nil {
			t.Errorf("RemoveStale = %v, %v; want %v", removed, err, want)
		}
	}
	if removed, err := RemoveStale(filepath.Join(path, "no", "such")); removed || err != nil {
		t.Errorf("no directory: %v, %v", removed, err)
	}
}

// TestNotTheAgentsUser: who may not ask an agent is told so, and not to stop another one.
func TestNotTheAgentsUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: becomes another user")
	}
	s := Server{Path: filepath.Join(t.TempDir(), "agent.sock")}
	start(t, &s)
	for dir := filepath.Dir(s.Path); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if _, err := unix.SetfsuidRetUid(65534); err != nil {
		t.Fatal(err)
	}
	defer unix.SetfsuidRetUid(0)
	_, err := RemoveStale(s.Path)
	if !errors.Is(err, fs.ErrPermission) || errors.Is(err, ErrRunning) || !strings.HasSuffix(err.Error(), "run as root or as the agent's user") {
		t.Errorf("error %v", err)
	}
}

func TestOtherFileStays(t *testing.T) {
	path := filepath.Join(t.TempDir(), "agent.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := "control socket: " + path + " exists and is no socket: remove it or set another path in control"
	if err := (&Server{Path: path}).Listen(); err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
	if data, err := os.ReadFile(path); string(data) != "precious" {
		t.Errorf("the file now holds %q, %v", data, err)
	}
}

// TestLaterSocketStays: an agent that ends must not take its successor's file.
func TestLaterSocketStays(t *testing.T) {
	first := &Server{Path: filepath.Join(t.TempDir(), "agent.sock"), Source: sample}
	if err := first.Listen(); err != nil {
		t.Fatal(err)
	}
	// The inode stays in use, so that the second file cannot have the same one.
	if err := os.Rename(first.Path, first.Path+".old"); err != nil {
		t.Fatal(err)
	}
	second := &Server{Path: first.Path, Source: sample}
	start(t, second)
	first.Close()
	first.Close()
	if _, err := Fetch(t.Context(), second.Path); err != nil {
		t.Error(err)
	}
}

func TestManyClients(t *testing.T) {
	s := &Server{Source: sample}
	stop := start(t, s)
	held := make([]net.Conn, MaxClients)
	for i := range held {
		conn, err := net.Dial("unix", s.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		held[i] = conn
	}
	// The accept loop is sequential: this one is behind the held ones.
	if _, err := Fetch(t.Context(), s.Path); err == nil || !strings.Contains(err.Error(), "too many clients at once") {
		t.Errorf("client beyond the bound: %v", err)
	}
	for _, conn := range held { // all of them are still served
		if _, err := conn.Write([]byte("status\n")); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || !strings.HasPrefix(line, `{"result":{"role":"edge"`) {
			t.Fatalf("held client: %q, %v", line, err)
		}
	}
	idle, err := net.Dial("unix", s.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	stop() // returns although a client is connected and says nothing
}

func TestPatience(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &Server{Source: sample}
		client, server := net.Pipe()
		defer client.Close()
		slots := make(chan struct{}, 1)
		slots <- struct{}{}
		var running sync.WaitGroup
		running.Add(1)
		begun := time.Now()
		go s.serve(t.Context(), &running, server, slots)
		running.Wait()
		if waited := time.Since(begun); waited != Patience {
			t.Errorf("a silent client was served for %v, want %v", waited, Patience)
		}
		if len(slots) != 0 {
			t.Error("its slot was not given back")
		}
	})
}

// TestBadServer: the client gives one clear line whatever answers.
func TestBadServer(t *testing.T) {
	for answer, want := range map[string]string{
		"":                          "gives no reply",
		"hello\n":                   "sends no valid reply",
		"{\"error\":\"no\"}\n":      "says: no",
		"{\"result\":{\"role\":1}}": "status from ",
	} {
		path := filepath.Join(t.TempDir(), "s")
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		go answerOnce(l, answer)
		_, err = Fetch(t.Context(), path)
		l.Close()
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: got %v, want %s", answer, err, want)
		}
	}
}

// TestHungServer: an agent that does not answer is one clear line, too.
func TestHungServer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path) // the kernel accepts, nobody answers
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err = Fetch(ctx, path)
	want := "the agent on " + path + " gives no reply in time: it hangs, or the machine is overloaded (context deadline exceeded)"
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func answerOnce(l net.Listener, answer string) {
	conn, err := l.Accept()
	if err != nil {
		return
	}
	defer conn.Close()
	_, _ = bufio.NewReader(conn).ReadString('\n')
	_, _ = conn.Write([]byte(answer))
}

func TestFetchGivesUp(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close() // nobody accepts: the connection waits in the queue
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Fetch(ctx, path); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want context.Canceled", err)
	}
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{"status\n", "status all", "  a b\tc\r\n", "", "\x00", strings.Repeat("a ", 20)} {
		f.Add([]byte(s))
	}
	s := &Server{Source: sample}
	f.Fuzz(func(t *testing.T, line []byte) {
		name, args, err := parseRequest(line)
		if err == nil && (name == "" || len(name) > 32 || len(args) > maxArgs || strings.ContainsAny(name, " \t\r\n")) {
			t.Fatalf("%q gives %q %q", line, name, args)
		}
		result, failed := s.answer(t.Context(), line)
		out := encode(result, failed)
		var r reply
		if err := json.Unmarshal(out, &r); err != nil || strings.Count(string(out), "\n") != 1 || (r.Error == "") == (r.Result == nil) {
			t.Fatalf("%q is answered with %q", line, out)
		}
	})
}

func FuzzReply(f *testing.F) {
	f.Add([]byte(`{"result":{}}`))
	f.Add([]byte(`{"error":"x"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		if raw, err := decode("p", line); err == nil && raw != nil && !json.Valid(raw) {
			t.Fatalf("%q gives %q", line, raw)
		}
	})
}
