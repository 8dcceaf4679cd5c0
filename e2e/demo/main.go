// Command demo shows what hawser does, on this machine alone: it lays the lab (client,
// edge, two emulated uplinks, cloud, origin), starts nginx as the origin and
// both agents, downloads a file with curl through the tunnel, cuts one uplink
// silently at half-time, and sums up what the client has seen. The same file
// fetched directly over the best uplink is the yardstick.
//
//	sudo make demo
//	sudo go run ./e2e/demo [-size MB] [-cut UPLINK] [-no-direct]
//
// The exit code is 0 only if the file arrived whole. Everything that the demo
// puts on the machine is gone when it ends, by itself or by a signal; what a
// killed demo left is removed by the next one.
//
// # Goroutines
//
// Each download runs gauge.read, which ends when curl closes its output. The
// lab owns the processes.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
)

// Exit codes.
const (
	exitFailure     = 1
	exitUsage       = 2
	exitInterrupted = 130 // as a shell reports it
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	o, err := parse(args, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	}
	if err != nil {
		return exitUsage // the flag package has said why
	}
	if err := ready(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return exitFailure
	}
	// SIGPIPE: a reader of the output that goes away must not leave the lab behind.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	defer stop()
	err = play(ctx, o, newScreen(os.Stdout))
	switch {
	case ctx.Err() != nil:
		fmt.Fprintln(os.Stderr, "demo: stopped before its end; the lab is removed")
		return exitInterrupted
	case err != nil:
		fmt.Fprintln(os.Stderr, "demo:", err)
		return exitFailure
	}
	return 0
}

// options are the flags.
type options struct {
	size   int64  // of the file, in bytes
	cut    string // the uplink that is cut
	direct bool   // download directly, too
}

const megabyte = 1e6

// parse reads the flags and writes what is wrong with them.
func parse(args []string, complaints io.Writer) (options, error) {
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.SetOutput(complaints)
	size := flags.Int64("size", 200, "size of the file in `MB`, 10 to 10000")
	cut := flags.String("cut", "lte", "`uplink` that is cut at half-time: "+strings.Join(names(), " or "))
	noDirect := flags.Bool("no-direct", false, "leave out the download over the direct path")
	err := flags.Parse(args)
	switch {
	case err != nil:
	case flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
		fmt.Fprintln(complaints, "demo:", err)
	case *size < 10 || *size > 10000:
		err = fmt.Errorf("-size %d: give 10 to 10000 MB", *size)
		fmt.Fprintln(complaints, "demo:", err)
	case rateOf(*cut) == 0:
		err = fmt.Errorf("-cut %s: there is no such uplink: give %s", *cut, strings.Join(names(), " or "))
		fmt.Fprintln(complaints, "demo:", err)
	}
	return options{size: *size * megabyte, cut: *cut, direct: !*noDirect}, err
}

// ready finds out whether the demo can run here.
func ready() error {
	if os.Geteuid() != 0 {
		return errors.New("needs root, to make network namespaces: run sudo make demo")
	}
	for _, program := range []string{"curl", "nginx", "iptables", "ip6tables"} {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("%s is not installed: run scripts/setup.sh", program)
		}
	}
	return nil
}
