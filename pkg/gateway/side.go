package gateway

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"time"

	"hawser/pkg/admin"
	"hawser/pkg/box"
	"hawser/pkg/buffer"
	"hawser/pkg/card"
	"hawser/pkg/config"
	"hawser/pkg/identity"
	"hawser/pkg/link"
	"hawser/pkg/metrics"
	"hawser/pkg/relay"
	"hawser/pkg/sealed"
	"hawser/pkg/sock"
	"hawser/pkg/tunnel"
)

// side is what both sides are made of.
type side struct {
	role     card.Role
	cfg      *config.Box
	id       identity.Key
	log      *slog.Logger
	started  time.Time
	counters sealed.Counters
	budget   *sealed.Budget

	workers   *box.Workers
	ports     []*sealed.Port // by worker
	listeners [][]*sock.Listener
	control   *admin.Server
	metrics   *metrics.Server
}

// reserve takes what other programs can see, status being the document's
// source. release gives it back when run will not be called.
func (s *side) reserve(status func() admin.Status) error {
	s.control = &admin.Server{Path: s.cfg.Control, Source: status}
	s.metrics = box.Metrics(s.cfg, status)
	if err := s.control.Listen(); err != nil {
		return err
	}
	if err := s.metrics.Listen(); err != nil {
		s.control.Close()
		return err
	}
	return nil
}

func (s *side) release() {
	s.metrics.Close()
	s.control.Close()
}

// build makes the workers. listen opens a worker's listeners.
func (s *side) build(listen func(port *sealed.Port, p *sock.Poller, r *relay.Worker) ([]*sock.Listener, error)) (err error) {
	memory := box.Memory(s.cfg, s.log)
	s.budget = sealed.NewBudget(func(flows int) int64 { return box.Payload(memory, flows) })
	s.workers, err = box.NewWorkers(box.Options{
		Role: s.role, Count: s.cfg.Workers, Memory: memory, Log: s.log, NoCompress: s.cfg.Compress == config.CompressOff, Card: s.cfg.Card,
		Ring: sealed.Ring,
		Attach: func(worker int, poller *sock.Poller, r *relay.Worker) error {
			port := sealed.NewPort(sealed.Options{
				Worker: worker, Poller: poller, Deliver: r.Deliver, Budget: s.budget, Counters: &s.counters,
			})
			s.ports = append(s.ports, port)
			l, err := listen(port, poller, r)
			s.listeners = append(s.listeners, l)
			return err
		},
		Detach: s.detach,
	})
	return err
}

// detach closes what a worker has left.
func (s *side) detach(worker int) {
	if worker >= len(s.listeners) {
		return
	}
	for _, l := range s.listeners[worker] {
		l.Close()
	}
	s.ports[worker].Close()
}

// run works until ctx ends or a part fails; extra is a further part, or nil.
func (s *side) run(ctx context.Context, extra func(context.Context) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	parts, stop := context.WithCancel(context.Background())
	defer stop()
	var wg sync.WaitGroup
	errs := make(chan error, 4)
	part := func(run func(context.Context) error) {
		if run == nil {
			return
		}
		wg.Go(func() {
			if err := run(parts); err != nil {
				errs <- err
				cancel(err)
			}
		})
	}
	part(s.workers.Run)
	part(s.control.Run)
	part(s.metrics.Run)
	part(extra)
	<-ctx.Done()
	s.log.Info("relay stops")
	s.workers.StopFlows()
	stop()
	wg.Wait()
	close(errs)
	var err error
	for e := range errs {
		err = errors.Join(err, e)
	}
	return err
}

// describe fills in what both sides' status documents begin with.
func (s *side) describe() admin.Status {
	st := s.workers.Describe(s.started, tunnel.NewBudget(s.budget.Limit()), &link.Counters{})
	st.Key, st.Intercept = s.id.String(), ""
	st.Memory.Used = uint64(max(buffer.Live(), 0))
	st.Memory.Peak = max(uint64(s.budget.Peak()), st.Memory.Used)
	st.Sessions = []admin.Session{}
	c := &s.counters
	st.Counters["relay_joined"] = c.Joined.Load()
	st.Counters["relay_again"] = c.Again.Load()
	st.Counters["relay_refused"] = c.Refused.Load()
	st.Counters["relay_tampered"] = c.Tampered.Load()
	st.Counters["relay_truncated"] = c.Truncated.Load()
	st.Counters["relay_crowded"] = c.Crowded.Load()
	st.Counters["relay_handshakes"] = c.Handshakes.Load()
	st.Counters["relay_handshake_fails"] = c.Failed.Load()
	return st
}
