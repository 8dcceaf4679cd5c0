package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"hawser/pkg/admin"
	"hawser/pkg/config"
	"hawser/pkg/identity"
	"hawser/pkg/keyfile"
)

// bench is a box with a configuration, a key and an agent made of functions.
type bench struct {
	t    *testing.T
	dir  string
	key  identity.Key
	role Role[*config.Edge]
	in   string
	exit func(int)

	out, err lockedBuffer
}

// lockedBuffer is written by the program while a test reads it.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir(), exit: func(code int) { t.Errorf("exit(%d)", code) }}
	key, err := identity.Generate(bytes.NewReader(bytes.Repeat([]byte{7}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	b.key = key
	if err := keyfile.Create(b.path("edge.key"), key); err != nil {
		t.Fatal(err)
	}
	b.configure(`cloud: {key: "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}`)
	b.role = Role[*config.Edge]{
		Name:  "edge",
		Parse: config.ParseEdge,
		Run: func(context.Context, *config.Edge, identity.Key, *slog.Logger) error {
			return errors.New("Run was not expected")
		},
		Check:   func(context.Context, *config.Edge, identity.Key) []admin.Finding { return nil },
		Cleanup: func(string) ([]string, error) { return nil, errors.New("Cleanup was not expected") },
	}
	return b
}

func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

// configure writes edge.yaml with one line of the test's choice.
func (b *bench) configure(line string) {
	b.t.Helper()
	text := fmt.Sprintf("identity: %s\n%s\nlinks:\n  - {name: wifi, interface: wlan0, cloud: \"203.0.113.10:7443\"}\nsteer: {interfaces: [br-lan]}\ncontrol: %s\nnamespace: ropes\n",
		b.path("edge.key"), line, b.path("edge.sock"))
	if err := os.WriteFile(b.path("edge.yaml"), []byte(text), 0o600); err != nil {
		b.t.Fatal(err)
	}
}

// do runs one command line; CONFIG stands for the configuration file.
func (b *bench) do(args ...string) int {
	b.t.Helper()
	b.out, b.err = lockedBuffer{}, lockedBuffer{}
	for i, a := range args {
		args[i] = strings.ReplaceAll(strings.ReplaceAll(a, "CONFIG", b.path("edge.yaml")), "DIR", b.dir)
	}
	p := &program[*config.Edge]{role: b.role, in: strings.NewReader(b.in), out: &b.out, err: &b.err, exit: b.exit}
	return p.execute(b.t.Context(), args)
}

// TestEmptyValues: a variable of a script that is not set is a mistake of the script's, not
// the flag left out.
func TestEmptyValues(t *testing.T) {
	b := newBench(t)
	for flag, args := range map[string][]string{
		"output": {"genkey", "-o", ""}, "input": {"pubkey", "-i", ""}, "config": {"run", "-c", ""}, "namespace": {"cleanup", "--namespace="},
		"control": {"status", "-c", "CONFIG", "--control", ""},
	} {
		b.wantLine(b.do(args...), exitUsage, "--"+flag+" is empty: give a value, or leave the flag out: try hawser-edge "+args[0]+" --help")
		if b.out.String() != "" {
			t.Errorf("%q prints %q", args, b.out.String())
		}
	}
}

// wantLine checks the exit code, and that the complaint is one clear line.
func (b *bench) wantLine(code, wantCode int, want string) {
	b.t.Helper()
	want = strings.ReplaceAll(want, "DIR", b.dir)
	if got := b.err.String(); code != wantCode || got != "hawser-edge: "+want+"\n" {
		b.t.Errorf("exit code %d, stderr %q\nwant %d, %q", code, got, wantCode, "hawser-edge: "+want+"\n")
	}
}

func TestBadCommandLines(t *testing.T) {
	b := newBench(t)
	for args, want := range map[string]string{
		"":                               "no verb given: try hawser-edge --help",
		"fly":                            `unknown command "fly" for "hawser-edge": try hawser-edge --help`,
		"run --speed 9":                  "unknown flag: --speed: try hawser-edge run --help",
		"-help":                          "unknown shorthand flag: 'e' in -elp: try hawser-edge --help",
		"help fly":                       `unknown command "fly" for "hawser-edge": try hawser-edge --help`,
		"help run now":                   `unknown command "now" for "hawser-edge run": try hawser-edge run --help`,
		"run now":                        `unknown command "now" for "hawser-edge run": try hawser-edge run --help`,
		"run -c":                         "flag needs an argument: 'c' in -c: try hawser-edge run --help",
		"run -c CONFIG --log-level loud": `--log-level: "loud" is not one of debug, info, warn, error`,
		"run -c DIR/none.yaml":           "no configuration in DIR/none.yaml: copy configs/edge.yaml there, or name another with -c: file does not exist",
		"run -c DIR":                     "configuration: read DIR: is a directory",
		"cleanup --control /x":           "--control goes with --namespace",
		"cleanup --namespace ../x":       `--namespace: "../x" is not a name: use 1 to 32 letters, digits, '.', '_' or '-', a letter or digit first`,
		"pubkey":                         "standard input: not a private key: expected one line of 44 characters, as `genkey` prints it",
		"status -c DIR/no.yaml":          "no configuration in DIR/no.yaml: copy configs/edge.yaml there, or name another with -c: file does not exist",
	} {
		b.wantLine(b.do(strings.Fields(args)...), exitUsage, want)
	}
}

func TestRunRefusesBadFiles(t *testing.T) {
	b := newBench(t)
	b.configure("cloud: {kee: x}")
	b.wantLine(b.do("run", "-c", "CONFIG"), exitUsage, `DIR/edge.yaml:2: cloud: "kee": unknown key; known here: key`)

	b.configure(`cloud: {key: "` + b.key.String() + `"}`)
	b.wantLine(b.do("run", "-c", "CONFIG"), exitUsage, "the configuration names this box's own public key "+b.key.String()+
		" as the peer's: paste the key that the other box's pubkey prints")

	if err := os.Chmod(b.path("edge.key"), 0o644); err != nil {
		t.Fatal(err)
	}
	b.wantLine(b.do("run", "-c", "CONFIG"), exitUsage, "DIR/edge.key has mode 0644, so others can read or change the private key: run chmod 600 DIR/edge.key")
	if err := os.Remove(b.path("edge.key")); err != nil {
		t.Fatal(err)
	}
	b.wantLine(b.do("run", "-c", "CONFIG"), exitUsage, "no private key in DIR/edge.key: make one with `genkey -o DIR/edge.key`: file does not exist")

	if err := syscall.Mkfifo(b.path("pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	b.wantLine(b.do("run", "-c", "DIR/pipe"), exitUsage, "DIR/pipe:1: the file is empty: start from the example in configs/")
}

func TestRun(t *testing.T) {
	b := newBench(t)
	b.role.Run = func(_ context.Context, cfg *config.Edge, id identity.Key, log *slog.Logger) error {
		if cfg.Namespace != "ropes" || id != b.key {
			t.Errorf("Run got namespace %q and key %v", cfg.Namespace, id)
		}
		log.Debug("quiet")
		log.Warn("loud", "link", "wifi")
		return nil
	}
	if code := b.do("run", "-c", "CONFIG"); code != exitOK {
		t.Errorf("exit code %d, %s", code, &b.err)
	}
	if s := b.err.String(); strings.Contains(s, "quiet") || !strings.Contains(s, "level=WARN msg=loud link=wifi") {
		t.Errorf("log at level info: %q", s)
	}
	if b.do("run", "-c", "CONFIG", "--log-level", "debug"); !strings.Contains(b.err.String(), "quiet") {
		t.Errorf("log at level debug: %q", &b.err)
	}
	b.role.Run = func(context.Context, *config.Edge, identity.Key, *slog.Logger) error {
		return errors.Join(errors.New("port 7443 is in use"), errors.New("hub0 is stuck"))
	}
	b.wantLine(b.do("run", "-c", "CONFIG"), exitFailure, "port 7443 is in use; hub0 is stuck")
	b.role.Run = func(context.Context, *config.Edge, identity.Key, *slog.Logger) error { return context.Canceled }
	b.wantLine(b.do("run", "-c", "CONFIG"), exitFailure, "context canceled") // nobody asked it to end
}

func TestSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if sig == syscall.SIGHUP && signal.Ignored(sig) {
			continue // the tests run under nohup, and run respects that
		}
		b := newBench(t)
		b.role.Run = func(ctx context.Context, _ *config.Edge, _ identity.Key, _ *slog.Logger) error {
			raise(t, sig)
			<-ctx.Done()
			return fmt.Errorf("stopped: %w", ctx.Err())
		}
		if code := b.do("run", "-c", "CONFIG"); code != exitOK || !strings.Contains(b.err.String(), "stopping") {
			t.Errorf("%v: exit code %d, %s", sig, code, &b.err)
		}
	}
}

func TestSecondSignal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		exited := make(chan int, 1)
		p := &program[*config.Edge]{exit: func(code int) { exited <- code }}
		got, ended := make(chan os.Signal), make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		go p.watch(got, ended, cancel, slog.New(slog.DiscardHandler))
		got <- syscall.SIGTERM
		<-ctx.Done()
		got <- syscall.SIGTERM // as timeout(1) does: to the program, then to its group
		synctest.Wait()
		if len(exited) != 0 {
			t.Error("the echo of the first signal ends the process")
		}
		time.Sleep(sameStop)
		got <- syscall.SIGTERM // the agent hangs in its end
		synctest.Wait()
		if len(exited) == 0 {
			t.Fatal("the second signal has no effect")
		}
		if code := <-exited; code != exitFailure {
			t.Errorf("exit code %d", code)
		}
		close(got)
		<-ended
	})
}

func raise(t *testing.T, sig syscall.Signal) {
	if err := syscall.Kill(syscall.Getpid(), sig); err != nil {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	b := newBench(t)
	found := []admin.Finding{
		{Level: admin.LevelOK, What: "interface wlan0", Remedy: "none needed"},
		{Level: admin.LevelWarn, What: "no BBR", Remedy: "modprobe tcp_bbr"},
	}
	b.role.Check = func(_ context.Context, cfg *config.Edge, id identity.Key) []admin.Finding {
		if cfg.Namespace != "ropes" || id != b.key {
			t.Errorf("Check got namespace %q and key %v", cfg.Namespace, id)
		}
		return found
	}
	code := b.do("check", "-c", "CONFIG")
	want := strings.ReplaceAll(`ok    configuration DIR/edge.yaml
ok    private key DIR/edge.key, public key KEY
ok    control socket DIR/edge.sock is free
ok    interface wlan0
warn  no BBR
      remedy: modprobe tcp_bbr
`, "DIR", b.dir)
	if want = strings.ReplaceAll(want, "KEY", b.key.String()); code != exitOK || b.out.String() != want || b.err.String() != "" {
		t.Errorf("exit code %d, stderr %q, stdout:\n%s\nwant:\n%s", code, &b.err, &b.out, want)
	}

	found = append(found, admin.Finding{Level: admin.LevelFail, What: "no interface wwan0", Remedy: "see ip link"})
	b.wantLine(b.do("check", "-c", "CONFIG"), exitFailure, "run would fail: 1 of 6 findings")
	if !strings.HasSuffix(b.out.String(), "fail  no interface wwan0\n      remedy: see ip link\n") {
		t.Errorf("stdout:\n%s", &b.out)
	}

	b.wantLine(b.do("check", "--json", "-c", "CONFIG"), exitFailure, "run would fail: 1 of 6 findings")
	var document []admin.Finding
	if err := json.Unmarshal([]byte(b.out.String()), &document); err != nil || len(document) != 6 || document[5] != found[2] {
		t.Errorf("JSON: %v, %v", document, err)
	}
}

func TestCheckBadFiles(t *testing.T) {
	b := newBench(t)
	asked := 0
	b.role.Check = func(_ context.Context, _ *config.Edge, id identity.Key) []admin.Finding {
		asked++
		if !id.IsZero() {
			t.Errorf("Check got key %v, want none", id)
		}
		return nil
	}
	if err := os.Chmod(b.path("edge.key"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(b.path("edge.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	b.wantLine(b.do("check", "-c", "CONFIG"), exitFailure, "run would fail: 2 of 3 findings")
	for _, want := range []string{"fail  DIR/edge.key has mode 0640,", "fail  control socket: DIR/edge.sock exists and is no socket\n      remedy: remove it"} {
		if want = strings.ReplaceAll(want, "DIR", b.dir); !strings.Contains(b.out.String(), want) {
			t.Errorf("stdout lacks %q:\n%s", want, &b.out)
		}
	}
	b.configure("cloud: 7")
	b.wantLine(b.do("check", "-c", "CONFIG"), exitFailure, "run would fail: 1 of 1 findings")
	if want := "fail  " + b.path("edge.yaml") + ":2: cloud: expected keys and values, such as {key: value}, not a number\n"; b.out.String() != want {
		t.Errorf("stdout %q, want %q", &b.out, want)
	}
	if asked != 1 {
		t.Errorf("the role was asked %d times, want once: not without a configuration", asked)
	}
}

// serve runs an agent's control socket until the test ends.
func (b *bench) serve(status admin.Status) (stop func()) {
	b.t.Helper()
	server := &admin.Server{Path: b.path("edge.sock"), Source: func() admin.Status { return status }}
	if err := server.Listen(); err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	ended := make(chan error)
	go func() { ended <- server.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; err != nil {
			b.t.Error(err)
		}
	}
}

func TestStatus(t *testing.T) {
	b := newBench(t)
	b.wantLine(b.do("status", "-c", "CONFIG"), exitFailure, "no agent is running: nothing answers on DIR/edge.sock")
	status := admin.Status{Role: "edge", Name: "train-7", Started: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)}
	stop := b.serve(status)
	for _, args := range [][]string{{"status", "-c", "CONFIG"}, {"status", "--control", "DIR/edge.sock"}} {
		if code := b.do(args...); code != exitOK || !strings.HasPrefix(b.out.String(), "edge: train-7\n") {
			t.Errorf("%v: exit code %d, stdout %q, stderr %q", args, code, &b.out, &b.err)
		}
	}
	code := b.do("status", "--json", "-c", "CONFIG")
	var got admin.Status
	if err := json.Unmarshal([]byte(b.out.String()), &got); code != exitOK || err != nil || !reflect.DeepEqual(got, status) {
		t.Errorf("exit code %d, %v, %+v", code, err, got)
	}
	found := []admin.Finding{
		{Level: admin.LevelFail, What: "namespace hawser is in use", Remedy: "stop it", Taken: true},
		{Level: admin.LevelFail, What: "metrics: address already in use", Remedy: "change it", Taken: true},
	}
	b.role.Check = func(context.Context, *config.Edge, identity.Key) []admin.Finding { return found }
	if code := b.do("check", "-c", "CONFIG"); code != exitOK || !strings.Contains(b.out.String(), "warn  control socket: an agent is running on") ||
		!strings.Contains(b.out.String(), "warn  namespace hawser is in use\n      remedy: nothing, if that is the agent that runs; else stop it\n") {
		t.Errorf("check beside a running agent: exit code %d, stdout:\n%s", code, &b.out)
	}
	found = append(found, admin.Finding{Level: admin.LevelFail, What: "no interface wwan0"})
	b.wantLine(b.do("check", "-c", "CONFIG"), exitFailure, "run would fail: 1 of 6 findings")
	b.wantLine(b.do("cleanup", "-c", "CONFIG"), exitFailure, "another agent is running: it answers on DIR/edge.sock: stop it first, or set another path in control")
	stop()
	found = found[:2]
	b.wantLine(b.do("check", "-c", "CONFIG"), exitFailure, "run would fail: 2 of 5 findings")
}

func TestCleanup(t *testing.T) {
	b := newBench(t)
	var cleaned []string
	removed := []string{"namespace ropes", "rule 100"}
	var broken error
	b.role.Cleanup = func(namespace string) ([]string, error) {
		cleaned = append(cleaned, namespace)
		return removed, broken
	}
	if code := b.do("cleanup", "-c", "CONFIG"); code != exitOK || b.out.String() != "removed namespace ropes\nremoved rule 100\n" {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, &b.out, &b.err)
	}
	removed = nil
	if code := b.do("cleanup", "--namespace", "other"); code != exitOK || b.out.String() != "nothing of namespace other is left on this host\n" {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, &b.out, &b.err)
	}
	b.crash()
	if code := b.do("cleanup", "--namespace", "other", "--control", "DIR/edge.sock"); code != exitOK || b.out.String() != "removed control socket "+b.path("edge.sock")+"\n" {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, &b.out, &b.err)
	}
	removed, broken = []string{"rule 100"}, errors.New("hub0 is stuck")
	b.wantLine(b.do("cleanup", "-c", "CONFIG"), exitFailure, "hub0 is stuck")
	if b.out.String() != "removed rule 100\n" {
		t.Errorf("stdout %q", &b.out)
	}
	if want := []string{"ropes", "other", "other", "ropes"}; !reflect.DeepEqual(cleaned, want) {
		t.Errorf("cleaned %q, want %q", cleaned, want)
	}
}

// crash leaves a socket file on which nobody listens.
func (b *bench) crash() {
	b.t.Helper()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		b.t.Fatal(err)
	}
	defer syscall.Close(fd)
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: b.path("edge.sock")}); err != nil {
		b.t.Fatal(err)
	}
}

func TestStaleSocketPassesCheck(t *testing.T) {
	b := newBench(t)
	b.crash()
	if code := b.do("check", "-c", "CONFIG"); code != exitOK || !strings.Contains(b.out.String(), "is a crashed run's, and will be replaced") {
		t.Errorf("exit code %d, stdout:\n%s", code, &b.out)
	}
}

func TestKeys(t *testing.T) {
	b := newBench(t)
	if code := b.do("genkey"); code != exitOK || len(b.out.String()) != 45 {
		t.Fatalf("genkey: exit code %d, stdout %q", code, &b.out)
	}
	private := b.out.String()
	key, err := identity.Parse([]byte(private))
	if err != nil {
		t.Fatal(err)
	}
	b.in = private
	if code := b.do("pubkey"); code != exitOK || b.out.String() != key.String()+"\n" {
		t.Errorf("pubkey: exit code %d, stdout %q, want %s", code, &b.out, key)
	}
	if b.do("genkey"); b.out.String() == private {
		t.Error("genkey printed the same key twice")
	}
	if code := b.do("genkey", "-o", "DIR/new.key"); code != exitOK {
		t.Fatalf("genkey -o: exit code %d, stderr %q", code, &b.err)
	}
	public := b.out.String()
	if code := b.do("pubkey", "-i", "DIR/new.key"); code != exitOK || b.out.String() != public || len(public) != 45 {
		t.Errorf("pubkey -i: exit code %d, stdout %q, want %q", code, &b.out, public)
	}
	b.wantLine(b.do("genkey", "-o", "DIR/new.key"), exitFailure, "DIR/new.key exists: a key is never overwritten, remove the file first: file already exists")
	b.wantLine(b.do("pubkey", "-i", "DIR/none"), exitUsage, "no private key in DIR/none: make one with `genkey -o DIR/none`: file does not exist")
}

func TestVersionAndHelp(t *testing.T) {
	b := newBench(t)
	if code := b.do("version"); code != exitOK || !strings.HasPrefix(b.out.String(), "hawser-edge "+admin.Release) || strings.Count(b.out.String(), "\n") != 1 {
		t.Errorf("version: exit code %d, stdout %q", code, &b.out)
	}
	if code := b.do("--help"); code != exitOK {
		t.Errorf("help: exit code %d", code)
	}
	for _, verb := range []string{"run", "check", "genkey", "pubkey", "status", "cleanup", "version"} {
		if !strings.Contains(b.out.String(), "\n  "+verb+" ") {
			t.Errorf("help does not name %s:\n%s", verb, &b.out)
		}
	}
}

// TestDefaultFiles: without a file in the usual place status and cleanup fall
// back to the defaults, while a file that was named must exist.
func TestDefaultFiles(t *testing.T) {
	for _, file := range []string{"/etc/hawser/edge.yaml", "/run/hawser/edge.sock"} {
		if _, err := os.Lstat(file); !errors.Is(err, os.ErrNotExist) {
			t.Skip("this host has an edge of its own: " + file)
		}
	}
	b := newBench(t)
	b.wantLine(b.do("status"), exitFailure, "no agent is running: nothing answers on /run/hawser/edge.sock")
	b.wantLine(b.do("run"), exitUsage, "no configuration in /etc/hawser/edge.yaml: copy configs/edge.yaml there, or name another with -c: file does not exist")
}
