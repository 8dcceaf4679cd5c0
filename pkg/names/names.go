// Package names finds the addresses of names where some resolvers are dead, or answer on
// one uplink only, or to one kind of question only: it asks all that /etc/resolv.conf names,
// or systemd-resolved in its place, at the same time. The system asks one after the other,
// each for five seconds, and a name has no address before both its IPv4 and its IPv6 one
// are known.
//
// Goroutines: a look-up has one for each question, and one for a server's two that count
// together; it returns after all have ended.
package names

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"time"
)

// Dial opens a connection to a name server; see net.Resolver.Dial.
type Dial func(ctx context.Context, network, server string) (net.Conn, error)

// Ask is net.Resolver.LookupNetIP.
type Ask func(ctx context.Context, network, host string) ([]netip.Addr, error)

const (
	// second is how long others are waited for when one has answered.
	second = 250 * time.Millisecond
	// slow is when the system's resolver is no longer waited for alone.
	slow = time.Second
)

// again is when what has not been answered is asked once more, since the round before: a
// packet is lost, or an uplink was just about to come up.
var again = []time.Duration{time.Second, 2 * time.Second}

// Resolver looks names up.
type Resolver struct {
	Ways []Dial // how a server is asked: by each at the same time

	system Ask    // nil: net.DefaultResolver's
	file   string // "": /etc/resolv.conf, and that of systemd-resolved
	behind string // the latter, with a file of one's own
}

// Look asks the system's resolver and each server by itself, in each way and for each IP
// version, all at once, until ctx ends. When an address has come that serves, others are
// waited for for a moment. It returns all that have come, those of the system first.
func (r Resolver) Look(ctx context.Context, host string, serves func(netip.Addr) bool) ([]netip.Addr, error) {
	l := look{host: host, enough: func(a []netip.Addr) bool { return slices.ContainsFunc(a, serves) }, wait: second}
	return l.run(ctx, append([]question{{r.ask(), "ip"}}, r.each()...), r.each(), again)
}

// LookThere is Look without the system's resolver, for what has another answer on each
// network: that asks by whatever way the host has.
func (r Resolver) LookThere(ctx context.Context, host string, serves func(netip.Addr) bool) ([]netip.Addr, error) {
	l := look{host: host, enough: func(a []netip.Addr) bool { return slices.ContainsFunc(a, serves) }, wait: second}
	return l.run(ctx, r.each(), r.each(), again)
}

// LookupNetIP is Look by the system's resolver. Where that has not answered within a second,
// the servers are asked one by one, too, and what comes first counts, alone: a server that
// comes later in /etc/resolv.conf may know other addresses of a name than the first one. Of
// both IP versions each server's answers count together.
func (r Resolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	l := look{host: host, enough: some}
	var each []question
	for two := range slices.Chunk(r.each(), 2) {
		if network == "ip" {
			each = append(each, question{both(two), network})
		} else {
			each = append(each, slices.DeleteFunc(two, func(q question) bool { return q.network != network })...)
		}
	}
	return l.run(ctx, []question{{r.ask(), network}}, each, []time.Duration{slow, 2 * time.Second})
}

func some(a []netip.Addr) bool { return len(a) > 0 }

// both asks a server's questions at the same time. When one is answered the other is waited
// for for a moment: the host may reach addresses of that IP version only.
func both(two []question) Ask {
	return func(ctx context.Context, _, host string) ([]netip.Addr, error) {
		l := look{host: host, enough: some, wait: second}
		return l.run(ctx, two, nil, nil)
	}
}

// System looks up as this host's programs do, but for servers that do not answer.
func System() Resolver { return Resolver{Ways: []Dial{new(net.Dialer).DialContext}} }

func (r Resolver) ask() Ask {
	if r.system != nil {
		return r.system
	}
	return net.DefaultResolver.LookupNetIP
}

// each are the questions to single servers, two by two.
func (r Resolver) each() (out []question) {
	for _, server := range r.servers() {
		for _, dial := range r.Ways {
			one := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return dial(ctx, network, server)
			}}
			out = append(out, question{one.LookupNetIP, "ip4"}, question{one.LookupNetIP, "ip6"})
		}
	}
	return out
}

// question is one to be asked.
type question struct {
	ask     Ask
	network string
}

// look is one look-up.
type look struct {
	host   string
	enough func([]netip.Addr) bool // of one answer
	wait   time.Duration           // for others, when there is one; 0: it counts alone

	answers chan answer
	pending int
	by      [][]netip.Addr // by the question's number
	failed  error          // the first question's that has
}

type answer struct {
	number int
	addrs  []netip.Addr
	err    error
}

// run asks, and asks others later while there are no answers.
func (l *look) run(ctx context.Context, now, later []question, after []time.Duration) ([]netip.Addr, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	l.answers = make(chan answer)
	l.begin(ctx, now)
	var over, next <-chan time.Time
	for l.pending > 0 {
		if next == nil && over == nil && len(after) > 0 {
			next, after = time.After(after[0]), after[1:]
		}
		select {
		case a := <-l.answers:
			l.take(a)
			if over == nil && l.enough(a.addrs) {
				over, next, after = time.After(l.wait), nil, nil
			}
			if l.wait == 0 && over != nil {
				l.drain(cancel)
				return a.addrs, nil
			}
		case <-next:
			next = nil
			l.begin(ctx, later)
		case <-over:
			l.drain(cancel)
		}
	}
	return l.found()
}

// begin asks questions.
func (l *look) begin(ctx context.Context, all []question) {
	for _, q := range all {
		n := len(l.by)
		l.by = append(l.by, nil)
		l.pending++
		go func() {
			addrs, err := q.ask(ctx, q.network, l.host)
			l.answers <- answer{n, addrs, err}
		}()
	}
}

func (l *look) take(a answer) {
	l.pending--
	l.by[a.number] = a.addrs
	if a.err != nil && l.failed == nil {
		l.failed = portless(a.err)
	}
}

// askedFrom is where a question was sent from, in the text of the error.
var askedFrom = regexp.MustCompile(`\S+->`)

// portless is an error that says the same each time that a name server fails: the system's
// has the port from which it was asked, and would be news for every log.
func portless(err error) error {
	var dns *net.DNSError
	if !errors.As(err, &dns) || !askedFrom.MatchString(dns.Err) {
		return err
	}
	same := *dns
	same.Err = askedFrom.ReplaceAllString(dns.Err, "")
	return &same
}

// drain ends the questions that are open.
func (l *look) drain(cancel func()) {
	for cancel(); l.pending > 0; {
		l.take(<-l.answers)
	}
}

// found is what has come, each address once.
func (l *look) found() (all []netip.Addr, err error) {
	for _, addrs := range l.by {
		for _, a := range addrs {
			if a = a.Unmap(); !slices.Contains(all, a) {
				all = append(all, a)
			}
		}
	}
	if len(all) > 0 {
		return all, nil
	}
	if l.failed == nil {
		l.failed = errors.New("the name has no address") // or there is no server
	}
	return nil, l.failed
}
