package cli

import (
	"io"

	"github.com/spf13/cobra"
)

// Verbs are what Main takes beside the verbs of its role.
type Verbs interface {
	command(streams) *cobra.Command
}

// streams are what a program reads and writes, and how it ends.
type streams struct {
	in       io.Reader
	out, err io.Writer
	exit     func(code int)
	daemon   bool
}

// Relay returns the verb relay: run by itself, with check and status below it.
// Role.Name names files and socket, such as "edge-relay"; Role.Cleanup is not
// used, since a relay puts nothing on the host.
func Relay[C Configuration](role Role[C]) Verbs { return relayVerbs[C]{role} }

type relayVerbs[C Configuration] struct{ role Role[C] }

func (v relayVerbs[C]) command(s streams) *cobra.Command {
	p := &program[C]{role: v.role, in: s.in, out: s.out, err: s.err, exit: s.exit, daemon: s.daemon}
	cmd := p.runCommand()
	cmd.Use, cmd.Short = "relay", "Run the stand-alone relay: an encryption gateway between plain TCP sockets"
	cmd.Args = noArgs
	for _, verb := range []*cobra.Command{p.checkCommand(), p.statusCommand()} {
		verb.Args = noArgs
		cmd.AddCommand(verb)
	}
	return cmd
}
