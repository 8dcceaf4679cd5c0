package box

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"sync"
	"time"

	"hawser/netns"
	"hawser/pkg/config"
	"hawser/pkg/guard"
	"hawser/pkg/shield"
	"hawser/pkg/split"
)

const (
	// floodTick is how often the shield is looked at during a flood, afterTick
	// after it.
	floodTick = 100 * time.Millisecond
	afterTick = time.Second
	// floodTrial is how many cookies must have come back before it counts that
	// the guard has seen none of them.
	floodTrial = 100
)

// sentry puts the shield up when clients flood the edge with SYNs, and takes
// it down when the flood is over and the last of its cookies has expired. run
// owns it but for what status reads.
type sentry struct {
	gate *split.Gate
	host *netns.Host
	log  *slog.Logger
	opts shield.Options
	told chan shield.Options // one slot: others from now on

	shield  *shield.Shield // nil until the first flood
	up      bool           // attached
	flood   bool           // SYNs are answered
	useless bool           // it has failed; the guard goes on alone
	over    time.Time      // when the flood has ended
	valid   uint64         // the gate's valid ACKs when it began
	back    uint64         // cookies that had come back by then
	counted uint64         // SYNs told to the gate

	mu     sync.Mutex
	status sentryStatus // guarded by mu
}

// sentryStatus is what others may know.
type sentryStatus struct {
	flood  bool
	floods uint64
	counts shield.Counts
}

// newSentry returns nil where SYNs are never to be answered in the kernel.
func (w *Workers) newSentry() (*sentry, error) {
	limit := w.opts.Rules.Limits.SYNFlood
	if w.gate == nil || limit == config.NoSYNFlood || w.opts.Rules.Handshake == config.HandshakeStrict {
		return nil, nil
	}
	o, err := w.shielding()
	if err != nil || len(o.Interfaces) == 0 {
		return nil, err
	}
	w.gate.WatchFloods(limit)
	return &sentry{gate: w.gate, host: w.opts.Host, log: w.opts.Log, opts: o, told: make(chan shield.Options, 1)}, nil
}

// shielding is which SYNs are answered in the kernel in a flood.
func (w *Workers) shielding() (o shield.Options, err error) {
	how, err := w.opts.Host.Steering()
	if err != nil {
		return o, err
	}
	o = shield.Options{Interfaces: how.Clients, Hub: how.Hub, Mark: how.Mark, Mask: how.Mask}
	o.Leave = append(append(o.Leave, how.Exclude...), w.rules.Load().Strict...)
	for _, r := range how.Ports {
		o.Ports = append(o.Ports, shield.Ports{First: r.First, Last: r.Last})
	}
	o.Offer4, o.Offer6 = w.stackOptions(0, -1).Offers()
	return o, nil
}

// Change has other rules hold for clients' connections that begin from now on, and what the
// host steers by now (netns.Host.Change). Of the limits those of one client's connections
// and of all first flights count. Handshake is strict in both, or in none.
func (w *Workers) Change(rules Rules) error {
	w.rules.Store(&rules)
	if w.gate != nil {
		w.gate.Change(guardModes[rules.Handshake], guardLimits(rules.Limits))
	}
	if w.sentry == nil {
		return nil
	}
	o, err := w.shielding()
	if err != nil {
		return err
	}
	select {
	case <-w.sentry.told: // older
	default:
	}
	w.sentry.told <- o
	return nil
}

// run works until ctx ends; then nothing of the shield is left.
func (s *sentry) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var due <-chan time.Time
		rise := s.gate.Flood()
		if s.flood || s.useless {
			rise = nil
		}
		if s.up {
			timer.Reset(s.pause())
			due = timer.C
		}
		select {
		case <-ctx.Done():
			s.end()
			return
		case s.opts = <-s.told:
			s.end() // a flood that goes on is told again
		case <-rise:
			s.begin()
		case <-due:
			s.look(time.Now())
		}
	}
}

func (s *sentry) pause() time.Duration {
	if s.flood {
		return floodTick
	}
	return afterTick
}

// begin answers SYNs in the kernel.
func (s *sentry) begin() {
	if !s.gate.Elsewhere(0, time.Now()) {
		return // what was told is history
	}
	err := s.host.Home(func() error {
		if !netns.TakesUp() {
			return errors.New("net.netfilter.nf_conntrack_tcp_loose is 0: connection tracking would not know the connections")
		}
		if s.shield == nil {
			var err error
			if s.shield, err = shield.New(s.opts); err != nil {
				return err
			}
		}
		return s.shield.Attach()
	})
	if err == nil && s.shield.Attached() == 0 {
		err = errors.New("none of steer.interfaces is an Ethernet interface")
	}
	if err == nil {
		s.flood = true
		err = s.duty(time.Now())
	}
	if err != nil {
		s.giveUp(err.Error())
		return
	}
	s.up, s.valid, s.back = true, s.gate.Valid(), s.shield.Counts().Recognised
	s.log.Warn("flood of SYNs: answering them in the kernel", "interfaces", s.shield.Attached())
	s.publish(1)
}

// duty tells the program what to do, with the keys of the moment.
func (s *sentry) duty(now time.Time) error {
	jar, clock := s.gate.Cookies(now)
	return s.shield.Do(shield.Duty{Answer: s.flood, Recognise: true, Jar: jar, Clock: clock})
}

// look follows the flood, and its end.
func (s *sentry) look(now time.Time) {
	c := s.shield.Counts()
	syns := c.Answered + c.Bad + c.Odd
	flood := s.gate.Elsewhere(int(syns-s.counted), now)
	s.counted = syns
	switch {
	case c.Failed > 0:
		s.giveUp("the kernel does not look up routes by marks for BPF: it is older than Linux 6.10")
		return
	case s.flood && c.Recognised-s.back > floodTrial && s.gate.Valid() == s.valid:
		s.giveUp("the ACKs of its clients do not come to the hub: a rule of this host drops them (ctstate NEW without SYN?)")
		return
	case s.flood && !flood:
		s.flood, s.over = false, now
		s.log.Info("the flood of SYNs is over", "answered", c.Answered, "dropped", c.Bad+c.Odd)
	case !s.flood && now.Sub(s.over) > 2*guard.SlotTime:
		s.takeDown()
		return
	}
	err := s.duty(now)
	if err == nil && s.flood { // an interface may have come back
		err = s.host.Home(s.shield.Attach)
	}
	if err != nil {
		s.giveUp(err.Error())
		return
	}
	s.publish(0)
}

// giveUp leaves all SYNs to the guard from now on.
func (s *sentry) giveUp(why string) {
	s.log.Warn("SYNs of floods are not answered in the kernel but by the guard, at more cost", "reason", why)
	s.useless = true
	s.end()
}

// takeDown detaches the program; it stays loaded for the next flood.
func (s *sentry) takeDown() {
	s.up, s.flood = false, false
	s.publish(0)
	if err := s.shield.Detach(); err != nil {
		s.log.Warn("the program that answers SYNs cannot be detached", "reason", err)
	}
}

// end leaves nothing behind.
func (s *sentry) end() {
	if s.shield == nil {
		return
	}
	s.takeDown()
	if err := s.shield.Close(); err != nil {
		s.log.Warn("the program that answers SYNs cannot be unloaded", "reason", err)
	}
	s.shield, s.counted = nil, 0
}

// publish lets others know how things stand.
func (s *sentry) publish(floods uint64) {
	c := s.shield.Counts()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.flood, s.status.counts = s.flood, c
	s.status.floods += floods
}

func (s *sentry) read() sentryStatus {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// StrictDestinations are those of policies that no cookie may be used for; all
// of them if such a policy names none.
func StrictDestinations(policies []config.Policy) (found []netip.Prefix) {
	for _, p := range policies {
		switch {
		case p.Handshake != config.HandshakeStrict:
		case p.Destination.IsValid():
			found = append(found, p.Destination)
		default:
			found = append(found, netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0))
		}
	}
	return found
}
