package cli

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"reflect"
	"syscall"

	"hawser/pkg/identity"
)

// settings are what an agent runs by.
type settings[C Configuration] struct {
	cfg C
	key identity.Key
}

// settings reads configuration and key.
func (p *program[C]) settings(path string) (*settings[C], error) {
	cfg, err := p.load(path)
	if err != nil {
		return nil, err
	}
	key, err := p.identity(cfg)
	if err != nil {
		return nil, err
	}
	return &settings[C]{cfg, key}, nil
}

// serve runs the agent until ctx ends, or until other returns what it is to go on with.
func (p *program[C]) serve(ctx context.Context, now *settings[C], other func(context.Context) *settings[C], log *slog.Logger) (next *settings[C], err error) {
	ctx, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if next = other(ctx); next != nil {
			cancel()
		}
	}()
	err = p.role.Run(ctx, now.cfg, now.key, log)
	told := ctx.Err() != nil
	cancel()
	<-ended
	if told && errors.Is(err, context.Canceled) {
		err = nil // it was told to end, and says so
	}
	return next, err
}

// other waits for a hangup that finds another configuration, which the agent cannot take over
// while it runs, and returns that; nil when ctx ends. A wrong file never ends the agent, and
// one that says the same no connection.
func (p *program[C]) other(ctx context.Context, path string, now *settings[C], hup <-chan os.Signal, log *slog.Logger) *settings[C] {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hup:
		}
		next, err := p.settings(path)
		taken := ""
		if err == nil && p.role.Take != nil && next.key == now.key && !reflect.DeepEqual(next, now) {
			taken, err = p.role.Take(next.cfg)
		}
		switch {
		case err != nil:
			log.Error("the configuration is wrong: the agent goes on with the former one", "error", oneLine(err))
		case reflect.DeepEqual(next, now):
			log.Info("the configuration is as it was: the agent goes on", "file", path)
		case taken != "":
			now = next
			log.Info("the configuration has changed: the agent goes on by the new one", "file", path, "taken_over", taken)
		default:
			log.Info("the configuration has changed: the agent starts anew", "file", path)
			return next
		}
	}
}

// hangups are what asks for the configuration to be read again; none where a terminal
// could go away, or where nohup has them ignored.
func (p *program[C]) hangups() (hup <-chan os.Signal, stop func()) {
	if !p.daemon || signal.Ignored(syscall.SIGHUP) {
		return nil, func() {}
	}
	got := make(chan os.Signal, 1)
	signal.Notify(got, syscall.SIGHUP)
	return got, func() { signal.Stop(got) }
}

// terminal reports whether the process has a terminal that controls it.
func terminal() bool {
	f, err := os.OpenFile("/dev/tty", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		return false
	}
	return f.Close() == nil
}
