package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func (p *program[C]) runCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "run", Short: "Run the agent until a signal ends it"}
	path := p.configFlag(cmd)
	level := cmd.Flags().String("log-level", "info", "least level that is logged: debug, info, warn or error")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return p.run(cmd.Context(), *path, *level)
	}
	return cmd
}

func (p *program[C]) run(ctx context.Context, path, level string) error {
	log, err := p.logger(level)
	if err != nil {
		return err
	}
	now, err := p.settings(path)
	if err != nil {
		return err
	}
	ctx, done := p.signals(ctx, log)
	defer done()
	hup, unhup := p.hangups()
	defer unhup()
	err = profiled(func() error {
		for ctx.Err() == nil {
			next, err := p.serve(ctx, now, func(ctx context.Context) *settings[C] { return p.other(ctx, path, now, hup, log) }, log)
			if next == nil || err != nil {
				return err
			}
			now = next
		}
		return nil
	})
	return fail(err)
}

func (p *program[C]) logger(level string) (*slog.Logger, error) {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	l, ok := levels[level]
	if !ok {
		return nil, fmt.Errorf("--log-level: %q is not one of debug, info, warn, error", level)
	}
	handler := func(w io.Writer) slog.Handler {
		return slog.NewTextHandler(w, &slog.HandlerOptions{Level: l})
	}
	if inJournal(p.err, os.Getenv("JOURNAL_STREAM")) {
		handler = func(w io.Writer) slog.Handler {
			return slog.NewTextHandler(journal{w}, &slog.HandlerOptions{Level: l, ReplaceAttr: timeless})
		}
	}
	if u, ok := p.err.(*unread); ok {
		u.note = func(lines int) []byte {
			var b bytes.Buffer
			slog.New(handler(&b)).Warn("lines of the log are lost: nobody has read them in time", "lines", lines)
			return b.Bytes()
		}
	}
	return slog.New(handler(p.err)), nil
}

// signals returns a context that the first signal ends. A second one,
// a second later, ends the process at once: the agent may hang in its end.
func (p *program[C]) signals(parent context.Context, log *slog.Logger) (ctx context.Context, done func()) {
	ctx, cancel := context.WithCancel(parent)
	got := make(chan os.Signal, 2)
	ended := make(chan struct{})
	signal.Notify(got, syscall.SIGINT, syscall.SIGTERM)
	// Ctrl-C ends also the program that reads the log by a pipe. Unless somebody wants
	// SIGPIPE the runtime ends the process at the next line, and the host stays changed.
	broken := make(chan os.Signal, 1)
	signal.Notify(broken, syscall.SIGPIPE)
	if !signal.Ignored(syscall.SIGHUP) && !p.daemon { // nohup means it
		signal.Notify(got, syscall.SIGHUP) // the terminal went away: clean up too
	}
	go p.watch(got, ended, cancel, log)
	return ctx, func() {
		signal.Stop(broken)
		signal.Stop(got)
		close(got)
		<-ended
		cancel()
	}
}

// sameStop is how long further signals belong to the first one: timeout(1)
// and others signal the program and then its process group.
const sameStop = time.Second

// watch ends when got is closed.
func (p *program[C]) watch(got <-chan os.Signal, ended chan<- struct{}, cancel func(), log *slog.Logger) {
	defer close(ended)
	var first time.Time
	for sig := range got {
		switch {
		case first.IsZero():
			first = time.Now()
			log.Info("stopping; a further signal ends the process at once", "signal", sig.String())
			cancel()
		case time.Since(first) >= sameStop:
			log.Warn("ended by a further signal; `cleanup` removes what is left on the host", "signal", sig.String())
			p.exit(exitFailure)
		}
	}
}
