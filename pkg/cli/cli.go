// Package cli is the command line that both binaries share: run, check,
// genkey, pubkey, status, cleanup and version. What differs between the
// binaries comes in a Role.
//
// Whatever goes wrong is one line on standard error. The exit code is 0 for
// success, 1 when what was asked for failed, and 2 when the command line, the
// configuration or the key is wrong.
//
// Goroutines: run starts one, program.watch, which turns signals into the end
// of the context and ends with the verb; and another one in program.serve, which waits
// for a changed configuration and ends with the agent.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"hawser/pkg/admin"
	"hawser/pkg/config"
	"hawser/pkg/identity"
)

// Exit codes.
const (
	exitOK      = 0
	exitFailure = 1 // what was asked for failed
	exitUsage   = 2 // the command line, the configuration or the key is wrong
)

// Configuration is what the verbs need of a parsed configuration file.
type Configuration interface {
	Settings() *config.Box
	Peers() [][32]byte // public keys of the other ends
}

// Role is what differs between the two binaries. All fields are needed, but for Take.
type Role[C Configuration] struct {
	Name string // "edge" or "cloud"; names binary, files and socket

	// Parse reads the contents of the configuration file called name.
	Parse func(name string, data []byte) (C, error)

	// Run is the agent. It returns nil after ctx has ended and all that it
	// put on the host is gone, or the reason why it cannot go on.
	Run func(ctx context.Context, cfg C, id identity.Key, log *slog.Logger) error

	// Take has the agent that runs go on by another configuration of the same identity, if
	// it can, and says in words what it has taken over; "": it cannot. An error says that no
	// agent could run by it here: the one that runs goes on by the former. Nil: it never can.
	Take func(next C) (string, error)

	// Check looks for what would make Run fail and changes nothing. The
	// identity is zero when the key cannot be read, which the command line
	// itself reports, as it does configuration and control socket.
	Check func(ctx context.Context, cfg C, id identity.Key) []admin.Finding

	// Cleanup removes what a crashed run with that namespace left on the host
	// and returns a line for each thing that it removed.
	Cleanup func(namespace string) ([]string, error)
}

// Main runs the command line of the process and returns its exit code.
func Main[C Configuration](role Role[C], more ...Verbs) int {
	// A crash must not look like a mistake in the configuration, after which the service
	// manager leaves the agent down: Go ends a crashed process with exitUsage, too, but
	// with this by SIGABRT. The private key would be in the core file.
	_ = unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
	debug.SetTraceback("crash")
	_ = os.Setenv("PATH", searched(os.Getenv("PATH")))
	p := &program[C]{role: role, more: more, in: os.Stdin, out: os.Stdout, err: &unread{file: os.Stderr}, exit: os.Exit, daemon: !terminal()}
	return p.execute(context.Background(), os.Args[1:])
}

// searched is where commands such as iptables are looked for: cron, and su from a user,
// leave out the directories that they are in.
func searched(path string) string {
	dirs := filepath.SplitList(path)
	for _, dir := range []string{"/usr/local/sbin", "/usr/sbin", "/sbin"} {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return strings.Join(dirs, string(filepath.ListSeparator))
}

// program is one invocation.
type program[C Configuration] struct {
	role     Role[C]
	more     []Verbs
	in       io.Reader
	out, err io.Writer
	exit     func(code int) // ends the process at the second signal
	daemon   bool           // there is no terminal that could hang up: SIGHUP means the configuration
}

// failure is an error whose exit code is 1. All others are the user's, 2.
type failure struct{ error }

func (f failure) Unwrap() error { return f.error }

func fail(err error) error {
	if err == nil {
		return nil
	}
	return failure{err}
}

func (p *program[C]) binary() string     { return "hawser-" + p.role.Name }
func (p *program[C]) configFile() string { return "/etc/hawser/" + p.role.Name + ".yaml" }
func (p *program[C]) socket() string     { return "/run/hawser/" + p.role.Name + ".sock" }

// execute runs the verb that args name.
func (p *program[C]) execute(ctx context.Context, args []string) int {
	out := &checked{w: p.out}
	p.out = out
	root := p.command()
	root.SetArgs(args)
	root.SetIn(p.in)
	root.SetOut(p.out)
	root.SetErr(p.err)
	err := root.ExecuteContext(ctx)
	if out.err != nil {
		err = fail(out.err) // who asks gets an answer, or is told that there is none
	}
	if err == nil {
		return exitOK
	}
	p.complain(oneLine(err))
	if errors.As(err, new(failure)) {
		return exitFailure
	}
	return exitUsage
}

// checked remembers that something could not be written.
type checked struct {
	w   io.Writer
	err error
}

func (c *checked) Write(p []byte) (int, error) {
	n, err := c.w.Write(p)
	if c.err == nil {
		c.err = err
	}
	return n, err
}

// oneLine joins the lines of errors that were joined, and of cobra's.
func oneLine(err error) string {
	var parts []string
	for line := range strings.Lines(err.Error()) {
		if line = strings.TrimSpace(line); line != "" {
			parts = append(parts, line)
		}
	}
	return strings.Join(parts, "; ")
}

func (p *program[C]) command() *cobra.Command {
	root := &cobra.Command{
		Use:           p.binary(),
		Short:         "Several thin uplinks made into one strong line: the " + p.role.Name,
		SilenceUsage:  true, // one line, not a page
		SilenceErrors: true, // execute prints them
		Args:          noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return fmt.Errorf("no verb given: try %s --help", cmd.Name())
		},
	}
	root.CompletionOptions.HiddenDefaultCmd = true
	root.DisableSuggestions = true
	root.SetHelpCommand(helpCommand(root))
	root.SetFlagErrorFunc(tryHelp)
	for _, verb := range []*cobra.Command{
		p.runCommand(), p.checkCommand(), p.genkeyCommand(), p.pubkeyCommand(),
		p.statusCommand(), p.cleanupCommand(), p.versionCommand(),
	} {
		verb.Args = noArgs
		root.AddCommand(verb)
	}
	for _, m := range p.more {
		root.AddCommand(m.command(streams{p.in, p.out, p.err, p.exit, p.daemon}))
	}
	return root
}

// helpCommand is cobra's, but that it complains of verbs that there are not as others do.
func helpCommand(root *cobra.Command) *cobra.Command {
	return &cobra.Command{Use: "help [verb]", Short: "Help about a verb", RunE: func(_ *cobra.Command, args []string) error {
		verb, rest, err := root.Find(args)
		if err == nil {
			err = noArgs(verb, rest)
		}
		if err != nil {
			return err
		}
		verb.InitDefaultHelpFlag()
		return fail(verb.Help())
	}}
}

// noArgs refuses words that belong to no verb and no flag, and flags without a value: a
// script's variable that is not set must neither have a private key printed (genkey -o)
// nor another namespace cleaned up.
func noArgs(cmd *cobra.Command, args []string) error {
	err := cobra.NoArgs(cmd, args)
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if err == nil && f.Value.String() == "" {
			err = fmt.Errorf("--%s is empty: give a value, or leave the flag out", f.Name)
		}
	})
	return tryHelp(cmd, err)
}

// tryHelp says where what a command takes can be read; nil stays nil.
func tryHelp(cmd *cobra.Command, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: try %s --help", err, cmd.CommandPath())
}

// configFlag adds -c to a verb.
func (p *program[C]) configFlag(cmd *cobra.Command) *string {
	return cmd.Flags().StringP("config", "c", p.configFile(), "configuration file")
}
