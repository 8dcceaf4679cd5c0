package tunnel

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"hawser/pkg/wire"
	"hawser/scheduler"
)

// LinkInfo names one link of a session.
type LinkInfo struct {
	ID         int       // the same at both ends
	Name       string    // as configured at the edge
	Transport  string    // "tcp" or "quic"
	Congestion string    // what governs its bulk from here; for status
	Remote     string    // for status
	Version    uint16    // of the protocol, that the connection's ends have agreed on
	Terms      LinkTerms // edge only; the cloud is told
}

// link is one uplink's place in the session: it outlives its connections.
type link struct {
	info     LinkInfo
	conn     *conn // the current connection, or nil
	est      scheduler.Estimator
	health   scheduler.Health
	terms    LinkTerms
	hint     scheduler.Hint      // of terms, for what is sent from here
	told     bool                // the cloud was told of terms before (edge)
	distrust *scheduler.Distrust // of all lanes of its uplink
	forged   uint64              // records that it has most likely brought so, either way
	endedAt  time.Time           // when its connection was ended, by other than this side; zero: not lately
	mute     bool                // the peer's program does not answer

	sentBytes, gotBytes uint64
	attaches, again     uint64 // connections made; bytes sent a second time here
	packetsLost         uint64 // as the transport counts them
	trips               uint64 // round trips measured
	tripTime            time.Duration
	lastErr             error // why the last connection has ended; nil while there is one
	meterUp, meterDown  meter
}

// Serve makes a carrier one of the session's connections and works it until it
// ends; it returns why. The caller's goroutine is the bulk reader; Serve starts
// the others and waits for them. The context's end closes the carrier.
func (s *Session) Serve(ctx context.Context, info LinkInfo, carrier Carrier) error {
	s.large.Store(info.Version >= wire.VersionLarge) // the same for all of a session
	c := newConn(&link{info: info}, carrier)
	if !s.post(func(in *mail) { in.attached = append(in.attached, c) }) {
		carrier.Close(ErrEnded)
		return ErrEnded
	}
	unwatch := context.AfterFunc(ctx, func() { carrier.Close(context.Cause(ctx)) })
	defer unwatch()
	err := c.work(s, info.Name)
	if !s.post(func(in *mail) { in.lost = append(in.lost, lostConn{c, err}) }) {
		c.discard()
		return errors.Join(ErrEnded, err)
	}
	return err
}

// work runs the connection's goroutines until it ends: a reader and a writer per
// strand, of which the caller's is the bulk reader. It returns why it ended.
func (c *conn) work(s *Session, link string) error {
	var running sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	own := c.strands // the session's as soon as one may join
	if j, ok := c.carrier.(Joiner); ok {
		running.Go(func() { c.joins(ctx, s, j, link, false) })
		if j.TakesTwin() {
			running.Go(func() { c.joins(ctx, s, j, link, true) })
		}
	}
	for _, st := range own {
		running.Go(func() { st.write(s) })
		if st != c.bulk {
			running.Go(func() { c.carrier.Close(st.read(s)) })
		}
	}
	err := c.bulk.read(s)
	c.carrier.Close(err)
	close(c.stop)
	cancel()
	running.Wait()
	return err
}

// attach takes a new connection in. The edge has chosen it and uses it at once.
// The cloud waits for its first record: the edge may have raced several
// connections, of which only the one that it uses speaks.
func (s *Session) attach(c *conn) {
	c.info = c.link.info
	c.link = s.findLink(c.info.ID)
	c.heard = s.now // the handshake that has just ended is proof of life
	if s.cfg.Edge {
		s.promote(c)
		return
	}
	if len(s.candidates) >= candidatesMost {
		s.closeConn(s.candidates[0], ErrUnused)
	}
	c.candidate = true
	s.candidates = append(s.candidates, c)
}

// promote makes c the connection of its link. A connection that stood there is
// closed: both ends agree that the newest one counts.
func (s *Session) promote(c *conn) {
	s.dismiss(c)
	l := c.link
	if l.conn != nil {
		s.closeConn(l.conn, ErrReplaced)
	}
	l.conn, l.info, l.lastErr = c, c.info, nil
	if s.cfg.Edge {
		s.setTerms(l, c.info.Terms)
	}
	l.attaches++
	l.est.Renew()
	c.look(s.now)
	if rtt := c.eye.sense.RTT; rtt > 0 && !l.est.Measured() {
		l.est.Ack(s.now, scheduler.Sample{RTT: rtt})
	}
	s.log.Info("link connected", "link", l.info.Name, "transport", l.info.Transport, "remote", l.info.Remote)
	s.stepHealth(l)
	for _, other := range s.links {
		if other != l && other.conn != nil && other.health.State() != scheduler.Up {
			s.moveSilent(other) // it was alone
		}
	}
}

// dismiss takes c off the candidates.
func (s *Session) dismiss(c *conn) {
	c.candidate = false
	s.candidates = slices.DeleteFunc(s.candidates, func(other *conn) bool { return other == c })
}

func (s *Session) findLink(id int) *link {
	for _, l := range s.links {
		if l.info.ID == id {
			return l
		}
	}
	l := &link{info: LinkInfo{ID: id}, distrust: &scheduler.Distrust{}}
	for _, lane := range s.links {
		if wire.UplinkOf(lane.info.ID) == wire.UplinkOf(id) {
			l.distrust = lane.distrust
		}
	}
	s.links = append(s.links, l)
	return l
}

// closeConn ends a connection. Its log goes to other links at once; detach
// follows when its goroutines have ended.
func (s *Session) closeConn(c *conn, err error) {
	if c.closed {
		return
	}
	c.closed, c.err = true, err
	if c.candidate {
		s.dismiss(c)
		c.carrier.Close(err)
		return
	}
	s.moveAway(c)
	if c.link.conn == c {
		c.link.conn, c.link.lastErr = nil, err
		if c.link.terms.Removed {
			c.link.lastErr = nil // it has not failed, should it come back
		}
		s.stepHealth(c.link)
	}
	c.carrier.Close(err)
}

// detach cleans up after a connection whose goroutines have ended.
func (s *Session) detach(c *conn, err error) {
	if s.leaving || c.candidate || c.link.terms.Removed {
		s.log.Debug("link closed", "link", c.link.info.Name)
	} else if !c.closed {
		s.log.Warn("link lost", "link", c.link.info.Name, "reason", err)
		c.link.endedAt = s.now
		s.suspect(c.link)
	} else if !errors.Is(c.err, ErrReplaced) {
		s.log.Warn("link closed", "link", c.link.info.Name, "reason", c.err)
	}
	s.closeConn(c, err)
	for _, st := range c.strands {
		for st.log.n > 0 {
			if e := st.log.pop(); e.piece != nil {
				e.piece.copies--
			}
		}
	}
	c.discard()
}

// moveAway queues everything that c has not had acknowledged for other links,
// in order of offsets, so that what blocks a flow goes first.
func (s *Session) moveAway(c *conn) {
	for _, st := range c.strands {
		s.moveStrand(st)
	}
}

// moveSilent is moveAway for a link that is silent, and may speak again: what has nowhere
// else to go stays where it is. It would go by the same connection once more, behind
// itself; and on a line so slow that every record makes a silence, again and again, until
// nothing else found its way.
func (s *Session) moveSilent(l *link) {
	alone := !slices.ContainsFunc(s.links, func(other *link) bool { return other != l && other.conn != nil })
	for _, st := range l.conn.strands {
		if !alone || st.apart != nil {
			s.moveStrand(st)
		}
	}
}

func (s *Session) moveStrand(st *strand) {
	for i := range st.log.n {
		e := st.log.at(i)
		if e.moved {
			continue
		}
		e.moved = true
		if e.ctrl != nil {
			s.repeatCtrl(e.ctrl)
			e.ctrl = nil
		}
		if p := e.piece; p != nil && p.state == sent && p.flow.send.enqueue(p) {
			s.order.Activate(&p.flow.node, s.now)
		}
	}
}

// checkHealth judges all links and sends the probes that are due.
func (s *Session) checkHealth() {
	for _, l := range s.links {
		s.stepHealth(l)
		s.stepMute(l)
		if c := l.conn; c != nil {
			s.stepApart(c)
			if s.stepStuck(c); c.closed {
				continue
			}
			if due, _ := l.health.ProbeDue(s.now, s.restful(c), &l.est); due {
				s.probe(c)
			}
		}
	}
}

// stepHealth lets the link's state machine judge, and obeys it.
func (s *Session) stepHealth(l *link) {
	was := l.health.State()
	if c := l.conn; c != nil && scheduler.Silence(s.now, c.evidence()) > lookAfter {
		c.look(s.now)
	}
	if !l.health.Step(s.now, l.conn.evidence(), &l.est) {
		return
	}
	state := l.health.State()
	s.log.Debug("link state", "link", l.info.Name, "from", was, "to", state)
	switch {
	case state == scheduler.Suspect:
		s.moveSilent(l)
		s.tellSilent(l, true)
	case state == scheduler.Probing:
		s.moveSilent(l)
		s.tellSilent(l, true)
		s.log.Warn("link silent", "link", l.info.Name, "for", scheduler.Silence(s.now, l.conn.evidence()).Round(time.Millisecond))
	case state == scheduler.Up:
		s.tellSilent(l, false)
	}
}

// lookAfter is the silence after which the transport is asked whether it hears
// anything.
const lookAfter = 10 * time.Millisecond

// tellSilent lets the agent race another connection on a silent uplink.
func (s *Session) tellSilent(l *link, silent bool) {
	if s.cfg.Silent != nil {
		s.cfg.Silent(l.info.ID, silent)
	}
}

// probe sends a record that only asks for an answer.
func (s *Session) probe(c *conn) { s.probeBy(c.control(s.now)) }

// probeBy is probe by one of the connection's strands.
func (s *Session) probeBy(st *strand) {
	b := st.batch()
	if b == nil {
		return // the transport takes nothing; what it holds is probe enough
	}
	st.commit(b, wire.AppendPing(st.block(b, s.now)), noSeg, entry{at: s.now, probe: true})
	st.conn.flush()
}

// sayGoodbye tells the peer on all links that this side stops, and waits for
// the peer to close them: a close with unread bytes would be a reset, which can
// overtake the goodbye. A link that is full of a download's bytes is told as
// soon as its writer has room.
func (s *Session) sayGoodbye() {
	s.leaving = true
	s.pump()
	timer := time.NewTimer(goodbyeTime)
	defer timer.Stop()
	for s.tellStop(); s.connected(); s.tellStop() {
		select {
		case <-s.box.wake:
			s.now = time.Now()
			s.drain(s.box.collect(mail{}))
		case <-timer.C:
			return
		}
	}
}

// tellStop says the goodbye on every link that takes it now and was not told.
func (s *Session) tellStop() {
	for _, l := range s.links {
		c := l.conn
		if c == nil || c.toldStop || l.health.State() != scheduler.Up {
			continue
		}
		st := c.control(s.now)
		b := st.batch()
		if b == nil {
			st.flush() // a batch that has no more room
			b = st.batch()
		}
		if b != nil {
			st.commit(b, wire.AppendStop(st.block(b, s.now), codeStopping), noSeg, entry{at: s.now})
			c.toldStop = true
		}
		c.flush()
	}
}

// goodbyeTime bounds how long a stop waits for the peer.
const goodbyeTime = 500 * time.Millisecond

// connected reports whether any link that is up still has its connection.
func (s *Session) connected() bool {
	for _, l := range s.links {
		if l.conn != nil && l.health.State() == scheduler.Up {
			return true
		}
	}
	return false
}
