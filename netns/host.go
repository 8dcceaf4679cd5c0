package netns

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/vishvananda/netlink"
	nsh "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// Hub is what the user-space stack must know of the veth pair.
type Hub struct {
	Index   int              // interface index of hub1 inside the namespace
	HostMAC net.HardwareAddr // hub0, where all frames of the stack go
	HubMAC  net.HardwareAddr // hub1, the stack's own
	Host4   netip.Addr       // hub0's address
	Hub4    netip.Addr       // the stack's address
	Host6   netip.Addr       // invalid, as Hub6, when the host has no IPv6
	Hub6    netip.Addr
	MTU     int // bytes of an IP packet
}

// Host is an installed virtual host. Its methods may be called from any
// goroutine; each call works in the network namespace that Install was called
// from.
type Host struct {
	plan    Plan
	names   names
	log     *slog.Logger
	variant variant
	hub     Hub
	home    nsh.NsHandle  // the namespace of the host
	space   nsh.NsHandle  // the namespace of hub1
	walls   []*firewall   // of the families that are steered
	changed chan struct{} // one slot: Change has been

	mu      sync.Mutex // guards the following, and of plan what Change changes
	kept    []step     // what keep puts back
	journal *journal
	closed  bool
	devices map[string]int    // index of each interface when its settings were made
	guarded map[int][]string  // per family, the interfaces that forward only because of us
	bridged map[int]bool      // per family, the guards spare bridged frames
	said    map[string]string // what was logged last of what is wrong with an uplink or interface
	returns returns           // of what connections are masqueraded by; Watch owns it
	paused  bool              // PauseTaking is in force
	moved   map[int]int       // per family, how far from prefSteer and so on our rules are
	// excepted are settings of guarded interfaces that did not forward although the host did.
	excepted map[string]bool
}

// Install puts the plan in place in the calling thread's network namespace.
// Leftovers of a run that crashed are removed first; a running owner of the
// same namespace is an error that names its pid. When a step fails, all that
// was done is undone and the error names the step. Needs CAP_NET_ADMIN,
// CAP_NET_RAW and CAP_SYS_ADMIN, and the iptables commands.
func Install(p Plan, log *slog.Logger) (*Host, error) {
	return install(p, log, variant{})
}

// variant is how tests make an installation differ.
type variant struct {
	change  func([]step) []step // the list of steps before the first is taken
	noForce bool                // as if the kernel had no force_forwarding
}

func install(p Plan, log *slog.Logger, v variant) (*Host, error) {
	p, err := p.prepared()
	if err != nil {
		return nil, err
	}
	if err := privileged(); err != nil {
		return nil, err
	}
	home, err := nsh.Get()
	if err != nil {
		return nil, fmt.Errorf("open this thread's network namespace: %w", err)
	}
	h := &Host{plan: p, names: namesOf(p.Role, p.Namespace), log: log, variant: v, home: home, space: nsh.None(), changed: make(chan struct{}, 1), bridged: map[int]bool{}}
	if err := inside(home, h.install); err != nil {
		h.closeHandles()
		return nil, err
	}
	return h, nil
}

func (h *Host) install() error {
	j, err := openJournal(h.plan.RunDir, h.plan.Namespace, true)
	if err != nil {
		return err
	}
	h.journal = j
	u := newUndoer()
	if err := h.clear(u); err != nil {
		return errors.Join(err, j.finish())
	}
	if err := h.build(u); err != nil {
		_, undoErr := j.rewind(u)
		return errors.Join(err, undoErr, j.finish())
	}
	h.log.Info("virtual host installed", "namespace", h.plan.Namespace, "role", h.plan.Role, "undo entries", len(j.entries))
	return nil
}

// clear removes what an earlier owner of the journal left.
func (h *Host) clear(u *undoer) error {
	done, err := h.journal.rewind(u)
	if err != nil {
		err = fmt.Errorf("leftovers of an earlier run: %w", err)
	} else {
		var named []string
		named, err = removeByName(u, h.names)
		done = append(done, named...)
	}
	for _, what := range done {
		h.log.Warn("removed a leftover of an earlier run", "what", what)
	}
	if err != nil {
		return err
	}
	return h.journal.begin(h.plan.Role)
}

func (h *Host) build(u *undoer) error {
	if err := checkPlace(h.plan); err != nil {
		return err
	}
	steps, err := h.steps(u)
	if err != nil {
		return err
	}
	if h.variant.change != nil {
		steps = h.variant.change(steps)
	}
	for _, s := range steps {
		if err := h.take(s); err != nil {
			return err
		}
	}
	names, err := h.settled()
	if err != nil {
		return err
	}
	for _, name := range names {
		if h.devices[name] == 0 {
			h.plugged(name)
		}
	}
	h.kept = slices.DeleteFunc(steps, func(s step) bool { return len(s.undo) == 0 })
	return nil
}

// take writes the undo of a step to the journal, then takes it.
func (h *Host) take(s step) error {
	for _, e := range s.undo {
		if err := h.journal.record(e); err != nil {
			return err
		}
	}
	h.log.Debug("install", "step", s.what)
	if err := s.do(); err != nil {
		return fmt.Errorf("%s: %w", s.what, err)
	}
	return nil
}

// takeAgain is take for a step that may have been taken before: what undoes it
// is in the journal already.
func (h *Host) takeAgain(s step) error {
	s.undo = slices.DeleteFunc(slices.Clone(s.undo), h.journal.holds)
	if err := h.noteAgain(s); err != nil {
		return err
	}
	return h.take(s)
}

// Hub describes the veth pair; it is zero where there is none.
func (h *Host) Hub() Hub { return h.hub }

// Close undoes everything in reverse and returns the joined errors. What could
// not be undone stays in the journal; a second Close or Cleanup tries again.
// After success Close does nothing.
func (h *Host) Close() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil
	}
	err := inside(h.home, func() error {
		_, err := h.journal.rewind(newUndoer())
		return err
	})
	if err != nil {
		return fmt.Errorf("virtual host %s is not fully removed: %w", h.plan.Namespace, err)
	}
	h.closed = true
	h.closeHandles()
	return h.journal.finish()
}

func (h *Host) closeHandles() {
	for _, ns := range []*nsh.NsHandle{&h.home, &h.space} {
		if ns.IsOpen() {
			ns.Close()
		}
	}
}

// checkPlace refuses plans whose client interfaces are missing and places that
// are taken by somebody else. An uplink may be plugged in later.
func checkPlace(p Plan) error {
	for _, name := range p.Clients {
		l, err := namedLink(name)
		if err == nil {
			err = partError(l)
		}
		if err != nil {
			return fmt.Errorf("steer.interfaces: interface %s: %w", name, plainLinkError(err))
		}
	}
	hub, err := netlink.LinkByName(hubHost)
	if err == nil {
		return fmt.Errorf("interface %s (%s) exists and does not belong to namespace %s: remove it, or stop the hawser that owns it", hubHost, hub.Attrs().HardwareAddr, p.Namespace)
	}
	return checkLinks(p, func(LinkRoute) bool { return true })
}

// checkLinks is checkPlace for those links of a plan that are to be installed, and for the
// routing tables.
func checkLinks(p Plan, wanted func(LinkRoute) bool) error {
	for _, l := range p.Links {
		if l.none() || !wanted(l) {
			continue
		}
		if _, err := namedLink(l.Interface); errors.As(err, new(otherName)) {
			return fmt.Errorf("link %s: interface %s: %w", l.Name, l.Interface, err)
		}
	}
	for _, table := range tablesOf(p) {
		if owner, err := foreignRoute(table); err != nil || owner != "" {
			return errors.Join(err, fmt.Errorf("routing table %d is in use (%s): hawser needs it for itself", table, owner))
		}
	}
	return nil
}

// namedLink finds an interface by its own name. The kernel also answers to others (ip link
// shows them as altname), by which no rule of iptables and no setting below /proc/sys
// finds it: everything would seem to be there, and no connection would be steered.
func namedLink(name string) (netlink.Link, error) {
	l, err := netlink.LinkByName(name)
	if err == nil && l.Attrs().Name != name {
		err = otherName(l.Attrs().Name)
	}
	return l, err
}

// otherName is the error of an interface that is called so.
type otherName string

func (n otherName) Error() string {
	return fmt.Sprintf("that is another name of %s: write %s in its place", string(n), string(n))
}

// partOf is the error of an interface that is a part of this bridge or bond: what comes in
// by it comes in by that for everything above, so that again no rule finds it.
type partOf string

func (p partOf) Error() string {
	return fmt.Sprintf("that is a part of %s: write %s in its place", string(p), string(p))
}

func partError(l netlink.Link) error {
	master := l.Attrs().MasterIndex
	if master == 0 {
		return nil
	}
	whole, err := netlink.LinkByIndex(master)
	if err != nil || !slices.Contains([]string{"bridge", "bond", "team"}, whole.Type()) { // a VRF is none
		return nil
	}
	return partOf(whole.Attrs().Name)
}

func plainLinkError(err error) error {
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return errors.New("there is no such interface")
	}
	return err
}

// privileged names the first capability that is missing.
func privileged() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return fmt.Errorf("read capabilities: %w", err)
	}
	for _, c := range []struct {
		bit  int
		name string
	}{{unix.CAP_NET_ADMIN, "CAP_NET_ADMIN"}, {unix.CAP_NET_RAW, "CAP_NET_RAW"}, {unix.CAP_SYS_ADMIN, "CAP_SYS_ADMIN"}} {
		if data[c.bit/32].Effective&(1<<(c.bit%32)) == 0 {
			return fmt.Errorf("%s is missing: run as root", c.name)
		}
	}
	return nil
}
