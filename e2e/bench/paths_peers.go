package main

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"time"

	"hawser/e2e/lab"
	"hawser/e2e/pair"
)

// rival is one row per scenario: a way to use the uplinks.
type rival struct {
	name       string
	transport  string // of hawser's links; "" for peers
	lanes      int    // of each of them; 0: as by default
	scheduler  string // of both agents, as in the file; "": as by default
	congestion string // of the sender's socket, for peers
	multipath  bool   // kernel MPTCP; else single connections, one per uplink
}

func (r rival) hawser() bool { return r.transport != "" }
func (r rival) single() bool { return !r.hawser() && !r.multipath }

var rivals = []rival{
	{name: "hawser-tcp", transport: "tcp"},
	{name: "hawser-quic", transport: "quic"},
	{name: "single-cubic", congestion: "cubic"},
	{name: "single-bbr", congestion: "bbr"},
	{name: "mptcp-cubic", congestion: "cubic", multipath: true},
	{name: "mptcp-bbr", congestion: "bbr", multipath: true},
}

// openRival builds a world for one reading of a rival. Losses depend on seed
// alone.
func openRival(s scenario, r rival, seed uint64) (*world, error) {
	spec := lab.Spec{Name: "paths", Uplinks: s.uplinks, Seed: seed}
	l, err := lab.New(spec)
	if err != nil {
		return nil, err
	}
	w := &world{Lab: l, port: tunnelPort}
	if r.hawser() {
		if w.pair, err = pair.New(l, spec, pair.Options{Transport: r.transport, Lanes: r.lanes, Scheduler: r.scheduler}); err == nil {
			err = w.start()
		}
	} else if err = w.routeBySource(s.uplinks, r.multipath); err == nil {
		w.service, err = newService(l, newPayloads(), pair.DirectPort)
	}
	if err != nil {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// routeBySource lets connections of the edge itself leave by the uplink whose
// address they have, and lets MPTCP use all of them.
func (w *world) routeBySource(uplinks []lab.Uplink, multipath bool) error {
	run := func(node string, argv ...string) error {
		out, err := w.Exec(node, append([]string{"ip"}, argv...)...)
		if err != nil {
			return fmt.Errorf("ip %v: %w: %s", argv, err, out)
		}
		return nil
	}
	var errs []error
	for i, u := range uplinks {
		own, table := w.EdgeAddress(u.Name, lab.IPv4).String(), strconv.Itoa(101+i)
		errs = append(errs,
			run("edge", "route", "add", "default", "via", w.Gateway(u.Name, lab.IPv4).String(), "dev", w.Interface(u.Name), "table", table),
			run("edge", "rule", "add", "from", own, "lookup", table))
		if multipath && i > 0 {
			errs = append(errs, run("edge", "mptcp", "endpoint", "add", own, "dev", w.Interface(u.Name), "subflow"))
		}
	}
	if multipath {
		for _, node := range []string{"edge", "origin"} {
			errs = append(errs, run(node, "mptcp", "limits", "set", "subflows", "8", "add_addr_accepted", "8"))
		}
	}
	return errors.Join(errs...)
}

// dialer connects to the origin; uplink is the one to use first, or alone.
type dialer func(uplink string) (*net.TCPConn, error)

// dialerOf returns how a rival connects.
func (w *world) dialerOf(r rival) dialer {
	if r.hawser() {
		return func(string) (*net.TCPConn, error) {
			c, _, err := w.dial(way{})
			return c, err
		}
	}
	return func(uplink string) (*net.TCPConn, error) {
		var conn net.Conn
		err := w.Do("edge", func() (err error) {
			d := net.Dialer{Timeout: dialLimit, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(w.EdgeAddress(uplink, lab.IPv4), 0))}
			d.SetMultipathTCP(r.multipath)
			conn, err = d.Dial("tcp", w.address(way{direct: true}))
			return err
		})
		if err != nil {
			return nil, err
		}
		c := conn.(*net.TCPConn)
		if r.multipath {
			if on, err := c.MultipathTCP(); err != nil || !on {
				c.Close()
				return nil, errors.Join(err, errors.New("the connection fell back to plain TCP"))
			}
		}
		return c, nil
	}
}

// extra is what arrived a second time because it was sent a second time, as a
// share of what arrived, by the counters of both agents: what was sent again
// because an uplink had lost it is none. ill is how often either agent took an
// uplink for dead or silent. The reading's flows must have ended.
func (w *world) extra() (share float64, ill uint64, err error) {
	count := map[string]map[string]uint64{}
	for _, role := range []string{"edge", "cloud"} {
		s, err := w.pair.Status(role)
		if err != nil {
			return 0, 0, err
		}
		count[role] = s.Sessions[0].Counters
		for _, l := range s.Sessions[0].Links {
			ill += l.Losses
		}
	}
	twice := func(from, to string) uint64 {
		return min(count[from]["bytes_sent_again"], count[to]["bytes_received_again"])
	}
	got := count["edge"]["bytes_received"] + count["cloud"]["bytes_received"]
	return float64(twice("edge", "cloud")+twice("cloud", "edge")) / float64(max(got, 1)), ill, nil
}

// lateness is how late the emulator let packets leave at worst in the mean, and
// whether it has dropped any by its own fault.
func (w *world) lateness(uplinks []lab.Uplink) (mean time.Duration, faults uint64, err error) {
	for _, u := range uplinks {
		s, err := w.Counters(u.Name)
		if err != nil {
			return 0, 0, err
		}
		mean = max(mean, s.Up.Counters.Late.Mean, s.Down.Counters.Late.Mean)
		faults += s.Up.Counters.Faults() + s.Down.Counters.Faults()
	}
	return mean, faults, nil
}
