package netns

import "slices"

// step is one change of the host. What undoes it is known before it is made.
type step struct {
	what  string
	undo  []entry // written to the journal before do runs
	do    func() error
	rules int // of a chain: how many it gets
}

// builder collects the steps of one plan. It only reads the host.
type builder struct {
	host     *Host
	plan     Plan
	names    names
	families []*firewall      // IPv4, and IPv6 where the host has it
	used     map[int][]string // per family, the tables that are there
	filled   map[int][]string // of them, those that hold something
	steps    []step
	// guarded are, per family, the interfaces that start to forward only
	// because of us. everything stands for all.
	guarded map[int][]string
}

const everything = "*"

// steps lists what Install does, in order. Steering comes last: nothing is sent
// to the hub, or to the sockets, before they can take it.
func (h *Host) steps(u *undoer) ([]step, error) {
	b := &builder{host: h, plan: h.plan, names: h.names, guarded: map[int][]string{}, used: map[int][]string{}, filled: map[int][]string{}}
	for _, family := range []int{4, 6} {
		if family == 6 && !ipv6Usable() {
			h.log.Warn("IPv6 is off on this host: only IPv4 is steered")
			continue
		}
		fw, err := u.firewall(family, "")
		if err != nil {
			return nil, err
		}
		if b.used[family], b.filled[family], err = fw.used(); err != nil {
			return nil, err
		}
		b.families = append(b.families, fw)
	}
	h.walls, h.excepted = b.families, map[string]bool{}
	if err := checkAlone(u, h.names); err != nil {
		return nil, err
	}
	for _, part := range b.parts() {
		if err := part(); err != nil {
			return nil, err
		}
	}
	h.guarded = b.guarded
	return b.noted(), nil
}

// parts are what a plan consists of, in order.
func (b *builder) parts() []func() error {
	switch {
	case b.plan.Role == RoleCloud:
		return []func() error{b.hubs, b.emptyTables, b.forwarding, b.egress}
	case b.plan.Intercept == InterceptTPROXY:
		return []func() error{b.emptyTables, b.claim, b.admission, b.uplinks, b.taking}
	}
	return []func() error{b.hubs, b.emptyTables, b.forwarding, b.keepAddresses, b.uplinks, b.steering}
}

func (b *builder) add(s ...step) { b.steps = append(b.steps, s...) }

// addIf takes the results of the functions that find out whether a step is
// needed.
func (b *builder) addIf(s step, needed bool, err error) error {
	if needed && err == nil {
		b.add(s)
	}
	return err
}

// emptyTables come before all chains, so they are undone after them.
func (b *builder) emptyTables() error {
	for _, fw := range b.families {
		tables := []string{"filter"}
		if b.plan.Role == RoleEdge {
			tables = append(tables, "mangle")
		}
		kept := b.plan.Intercept != InterceptTPROXY && slices.Contains(b.used[fw.family], "nat") // by keepAddresses
		if b.plan.Masquerade || b.plan.Direct || kept {
			tables = append(tables, "nat")
		}
		for _, table := range tables {
			if !slices.Contains(b.filled[fw.family], table) {
				b.add(tableStep(fw, table))
			}
		}
	}
	return nil
}
