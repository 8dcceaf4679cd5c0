package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"hawser/pkg/config"
	"hawser/pkg/identity"
)

// asProgram names the environment variable that makes the test binary the program.
const asProgram = "HAWSER_CLI_TEST_RUN"

func TestMain(m *testing.M) {
	if run, ok := programs[os.Getenv(asProgram)]; ok {
		os.Exit(Main(Role[*config.Edge]{Name: "edge", Parse: config.ParseEdge, Run: run, Take: takesMost}))
	}
	os.Exit(m.Run())
}

// takesMost is Take of an agent that takes over all but memory, and cannot run by one name.
func takesMost(next *config.Edge) (string, error) {
	switch {
	case next.Name == "impossible":
		return "", errors.New("name: there is no such host")
	case next.Memory != 512<<20:
		return "", nil
	}
	return "name", nil
}

// programs are agents that end in ways of their own.
var programs = map[string]func(context.Context, *config.Edge, identity.Key, *slog.Logger) error{
	"crash": func(ctx context.Context, _ *config.Edge, _ identity.Key, _ *slog.Logger) error {
		go func() { panic("a mistake of ours") }()
		<-ctx.Done()
		return nil
	},
	"path": func(context.Context, *config.Edge, identity.Key, *slog.Logger) error {
		return errors.New(os.Getenv("PATH"))
	},
	"tidy": func(ctx context.Context, cfg *config.Edge, _ identity.Key, log *slog.Logger) error {
		log.Info("edge runs")
		if err := os.WriteFile(cfg.Control+".begun", nil, 0o600); err != nil {
			return err
		}
		<-ctx.Done()
		log.Info("edge stops")
		return os.WriteFile(cfg.Control+".clean", nil, 0o600)
	},
}

// start runs the test binary as one of programs, under the configuration of b.
func (b *bench) start(program string) (cmd *exec.Cmd, log *os.File) {
	b.t.Helper()
	cmd, log = b.prepare(program)
	b.begin(cmd)
	return cmd, log
}

// prepare is start without the start.
func (b *bench) prepare(program string) (cmd *exec.Cmd, log *os.File) {
	b.t.Helper()
	log, written, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	cmd = exec.Command(os.Args[0], "run", "-c", b.path("edge.yaml"))
	cmd.Env, cmd.Stderr = append(os.Environ(), asProgram+"="+program), written
	b.t.Cleanup(func() { log.Close() })
	return cmd, log
}

// begin starts what was prepared; the log's other end is the program's alone then.
func (b *bench) begin(cmd *exec.Cmd) {
	b.t.Helper()
	defer cmd.Stderr.(*os.File).Close()
	if err := cmd.Start(); err != nil {
		b.t.Fatal(err)
	}
}

// TestCrashIsNoMistakeOfTheConfiguration: systemd does not start again what has ended
// with exit code 2 (RestartPreventExitStatus), which is Go's for a crash, too.
func TestCrashIsNoMistakeOfTheConfiguration(t *testing.T) {
	cmd, log := newBench(t).start("crash")
	text, err := io.ReadAll(log)
	if err != nil || !bytes.Contains(text, []byte("a mistake of ours")) {
		t.Errorf("it has not crashed: %v, log:\n%s", err, text)
	}
	var exit *exec.ExitError
	if !errors.As(cmd.Wait(), &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGABRT {
		t.Errorf("it ended by %v, want SIGABRT", exit)
	}
}

// TestEndsInOrderWithoutReader: Ctrl-C in `run 2>&1 | tee log` ends both; the agent has
// things to undo all the same.
func TestEndsInOrderWithoutReader(t *testing.T) {
	b := newBench(t)
	cmd, log := b.start("tidy")
	line, err := bufio.NewReader(log).ReadString('\n')
	if err != nil || !strings.Contains(line, "edge runs") {
		t.Errorf("log %q, %v", line, err)
	}
	log.Close()
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Error(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended by %v", err)
	}
	if _, err := os.Stat(b.path("edge.sock.clean")); err != nil {
		t.Errorf("it has not cleaned up: %v", err)
	}
}

// TestPathOfCron: iptables is found although PATH lacks where it is, as that of cron does.
func TestPathOfCron(t *testing.T) {
	for path, want := range map[string]string{
		"/usr/bin:/bin":           "/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin",
		"/usr/sbin:/opt/iptables": "/usr/sbin:/opt/iptables:/usr/local/sbin:/sbin",
		"":                        "/usr/local/sbin:/usr/sbin:/sbin",
	} {
		b := newBench(t)
		cmd, log := b.prepare("path")
		cmd.Env = append(cmd.Env, "PATH="+path)
		b.begin(cmd)
		text, err := io.ReadAll(log)
		if _ = cmd.Wait(); err != nil || string(text) != "hawser-edge: "+want+"\n" {
			t.Errorf("PATH=%s became %q, %v; want %s", path, text, err, want)
		}
	}
}

// TestNobodyTakesTheAnswer: a verb whose answer cannot be written has failed, whatever it
// has done.
func TestNobodyTakesTheAnswer(t *testing.T) {
	b := newBench(t)
	b.role.Cleanup = func(string) ([]string, error) { return []string{"rule 100"}, nil }
	for _, args := range [][]string{
		{"cleanup", "-c", "CONFIG"}, {"version"}, {"genkey"}, {"pubkey", "-i", "DIR/edge.key"}, {"check", "-c", "CONFIG"},
		{"check", "--json", "-c", "CONFIG"}, {"--help"}, {"help", "run"}, {"run", "--help"},
	} {
		p := &program[*config.Edge]{role: b.role, out: full{}, err: &b.err, exit: b.exit}
		b.err = lockedBuffer{}
		for i, a := range args {
			args[i] = strings.ReplaceAll(strings.ReplaceAll(a, "CONFIG", b.path("edge.yaml")), "DIR", b.dir)
		}
		if code := p.execute(t.Context(), args); code != exitFailure || b.err.String() != "hawser-edge: no space left on device\n" {
			t.Errorf("%q: exit code %d, %q", args, code, b.err.String())
		}
	}
}

// full is /dev/full.
type full struct{}

func (full) Write([]byte) (int, error) { return 0, syscall.ENOSPC }
