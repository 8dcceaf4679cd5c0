package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

const ms = time.Millisecond

// soak is one run.
type soak struct {
	ctx    context.Context
	lab    *lab.Lab
	pair   *pair.Pair
	server *server
	to     string
	seed   uint64
	flows  int
	flaws  bool // the agents' cards have faults
	began  time.Time

	done   [kinds]atomic.Int64
	bytes  atomic.Int64
	failed atomic.Int64
	faults [faultKinds]atomic.Int64

	mu   sync.Mutex
	errs []string // the first few
	seen []figures
}

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "soak:", err)
		os.Exit(1)
	}
}

func run() error {
	length := flag.Duration("for", time.Hour, "how long")
	flows := flag.Int("flows", 24, "flows at a time")
	seed := flag.Uint64("seed", uint64(time.Now().Unix()), "of all that is random")
	intercept := flag.String("intercept", "hub", "how the edge takes connections: hub or tproxy")
	card := flag.String("card", "pool", "the agents' crypto card: inline or pool")
	transport := flag.String("transport", "auto", "of the links: auto, tcp or quic")
	flaws := flag.Bool("card-faults", true, "the agents' pools have the faults of a poor accelerator")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := lab.CleanStale(); err != nil {
		return err
	}
	s := &soak{seed: *seed, flows: *flows, flaws: *flaws && *card == "pool"}
	fmt.Printf("soak for %v, seed %d, %d flows at a time, intercept %s, card %s, links %s\n", *length, s.seed, s.flows, *intercept, *card, *transport)
	remove, err := s.agents()
	if err != nil {
		return err
	}
	defer remove()
	err = s.open(pair.Options{Intercept: *intercept, Egress: map[string]string{"hub": "hub", "tproxy": "socket"}[*intercept], Card: *card, Transport: *transport})
	if err == nil {
		err = s.play(ctx, *length)
	}
	return errors.Join(err, s.close())
}

// lines are three uplinks as they are without faults.
func lines() []lab.Uplink {
	return []lab.Uplink{
		{Name: "wifi", Rate: 40e6, Delay: 8 * ms}, {Name: "lte", Rate: 25e6, Delay: 25 * ms}, {Name: "sat", Rate: 10e6, Delay: 120 * ms},
	}
}

func (s *soak) open(o pair.Options) (err error) {
	spec := lab.Spec{Name: "soak", Uplinks: lines(), Seed: s.seed}
	if s.lab, err = lab.New(spec); err != nil {
		return err
	}
	if s.pair, err = pair.New(s.lab, spec, o); err != nil {
		return err
	}
	s.server = &server{}
	err = s.lab.Do("origin", func() (err error) {
		s.server.ln, err = net.Listen("tcp", ":80")
		return err
	})
	if err != nil {
		return err
	}
	s.server.wg.Add(1)
	go s.server.accept()
	s.to = netip.AddrPortFrom(s.lab.Address("origin", lab.IPv4), 80).String()
	return s.pair.Start()
}

// close ends all, and says what is left on the hosts.
func (s *soak) close() error {
	if s.lab == nil {
		return nil
	}
	var errs []error
	if s.pair != nil {
		errs = append(errs, s.pair.Stop())
	}
	if s.server != nil && s.server.ln != nil {
		s.server.close()
	}
	left, err := s.lab.Leaks()
	errs = append(errs, err)
	for _, l := range left {
		errs = append(errs, fmt.Errorf("left behind: %s", l))
	}
	return errors.Join(append(errs, s.lab.Close())...)
}

// play runs load and faults, then judges.
func (s *soak) play(ctx context.Context, length time.Duration) error {
	s.began = time.Now()
	if err := s.note(); err != nil { // before any flow
		return err
	}
	var cancel context.CancelFunc
	s.ctx, cancel = context.WithTimeout(ctx, length)
	defer cancel()
	var load, others sync.WaitGroup
	for i := range s.flows {
		load.Go(func() { s.worker(rand.New(rand.NewPCG(s.seed, uint64(i)))) })
	}
	others.Go(func() { s.breakUplinks(rand.New(rand.NewPCG(s.seed, 1<<32))) })
	others.Go(s.watch)
	load.Wait()
	others.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return s.judge()
}

// worker plays one flow after the other until the time is over.
func (s *soak) worker(r *rand.Rand) {
	for s.ctx.Err() == nil {
		o := order{kind: byte(r.IntN(kinds)), seed: r.Uint64(), size: sizeOf(r)}
		if err := s.flow(o); err != nil {
			s.failed.Add(1)
			s.complain(fmt.Sprintf("%6.1f s: flow of kind %d, %d bytes: %v", time.Since(s.began).Seconds(), o.kind, o.size, err))
		} else {
			s.done[o.kind].Add(1)
			s.bytes.Add(o.size)
		}
		pause(s.ctx, time.Duration(r.IntN(400))*ms)
	}
}

// sizeOf is mostly small and at times large.
func sizeOf(r *rand.Rand) int64 {
	switch r.IntN(10) {
	case 0:
		return 1 + r.Int64N(6<<20)
	case 1, 2, 3:
		return 1 + r.Int64N(500<<10)
	}
	return 1 + r.Int64N(20<<10)
}

func (s *soak) flow(o order) error {
	var c net.Conn
	err := s.lab.Do("client", func() (err error) {
		c, err = net.DialTimeout("tcp", s.to, flowLimit)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	return o.play(c.(*net.TCPConn))
}

// complain keeps what went wrong first.
func (s *soak) complain(what string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.errs) < 20 {
		s.errs = append(s.errs, what)
		fmt.Println(what)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}
