package netns

import (
	"errors"
	"fmt"
	"path"
	"reflect"
	"slices"
)

// Change has the host be what another plan says of links, exclusions and ports, while
// connections go on; what else the plan says does not count. Links are told apart by their
// places: one that differs is removed, and installed anew. What is added is in the journal
// before it is done, what is removed is there until it is undone. After an error the host may
// be changed in part: Close undoes all of it. It may be called from any goroutine; a Watch
// that is under way tells the state of all links afterwards.
func (h *Host) Change(next Plan) error {
	next, err := next.prepared()
	if err != nil {
		return err
	}
	if err := h.atHome(func() error { return h.change(next) }); err != nil {
		return err
	}
	select {
	case h.changed <- struct{}{}:
	default:
	}
	return nil
}

// Admits tells why Change to a plan cannot be, before anything has changed. It may be called
// from any goroutine.
func (h *Host) Admits(next Plan) error {
	next, err := next.prepared()
	if err != nil {
		return err
	}
	return h.atHome(func() error { return h.admits(next) })
}

func (h *Host) admits(next Plan) error {
	return checkLinks(next, func(l LinkRoute) bool {
		return !slices.ContainsFunc(h.plan.Links, func(o LinkRoute) bool { return reflect.DeepEqual(o, l) })
	})
}

func (h *Host) change(next Plan) error {
	was := h.plan
	stays := func(i int) bool {
		return i < len(was.Links) && i < len(next.Links) && reflect.DeepEqual(was.Links[i], next.Links[i])
	}
	if err := h.admits(next); err != nil {
		return err
	}
	for i := range was.Links {
		if !stays(i) {
			if err := h.removeUplink(uplinkTable(i)); err != nil {
				return err
			}
		}
	}
	h.plan.Links, h.plan.Exclude, h.plan.Ports = next.Links, next.Exclude, next.Ports
	for _, l := range was.Links {
		if err := h.unsettle(l.Interface); err != nil {
			return err
		}
	}
	if err := h.separateAgain(); err != nil {
		return err
	}
	for i, l := range next.Links {
		if l.none() || stays(i) {
			continue
		}
		if err := h.addUplink(l, uplinkTable(i)); err != nil {
			return fmt.Errorf("link %s: %w", l.Name, err)
		}
	}
	return h.resteer(was)
}

// addUplink does what uplinks does for a link.
func (h *Host) addUplink(l LinkRoute, table int) error {
	h.plugged(l.Interface)
	if err := h.loosenAgain(l.Interface); err != nil {
		return err
	}
	b := &builder{host: h, plan: h.plan, names: h.names}
	if err := b.uplink(l, table); err != nil {
		return err
	}
	for _, s := range b.steps {
		if err := h.take(s); err != nil {
			return err
		}
		h.kept = append(h.kept, s)
	}
	return nil
}

// removeUplink undoes what uplinks did for a link's table.
func (h *Host) removeUplink(table int) error {
	return h.undoNow(func(e entry) bool {
		return e.Do == undoRoutes && e.Number == table || e.Do == undoRule && e.Policy != nil && e.Policy.Table == table
	})
}

// unsettle gives an interface its settings back that it had for being an uplink, if it is
// none any more.
func (h *Host) unsettle(device string) error {
	if device == "" || slices.ContainsFunc(h.plan.Links, func(l LinkRoute) bool { return l.Interface == device }) {
		return nil
	}
	ours := func(e entry) bool {
		setting := path.Base(e.Path)
		return e.Do == undoSysctl && path.Base(path.Dir(e.Path)) == device && (setting == "rp_filter" || setting == "arp_ignore")
	}
	if !h.plan.forwards(device) {
		delete(h.devices, device)
	}
	if !slices.ContainsFunc(h.journal.entries, ours) {
		return nil
	}
	return errors.Join(h.undoNow(ours), h.renote())
}

// undoNow undoes entries of the journal, the newest first, and forgets them.
func (h *Host) undoNow(wanted func(entry) bool) error {
	u := newUndoer()
	for _, e := range slices.Backward(h.journal.entries) {
		if !wanted(e) {
			continue
		}
		if _, err := u.undo(e); err != nil {
			return err
		}
	}
	h.kept = slices.DeleteFunc(slices.Clone(h.kept), func(s step) bool { return wanted(s.undo[0]) })
	return h.journal.forget(wanted)
}

// renote has the chain of former values say what the journal says: a value that was given
// back is not ours to restore once more.
func (h *Host) renote() error {
	var rules [][]string
	for _, e := range h.journal.entries {
		if rule, ok := formerNote(e); ok {
			rules = append(rules, rule)
		}
	}
	s := chainStep(h.walls[0], formerTable, h.names.chain(formerPart), rules)
	if !h.journal.holds(s.undo[0]) {
		return nil
	}
	return h.refill(s)
}

// resteer makes those chains anew that say something else by now of what is steered.
func (h *Host) resteer(was Plan) error {
	for _, fw := range h.walls {
		before := (&builder{host: h, plan: was, names: h.names, guarded: h.guarded}).decisions(fw)
		for i, s := range (&builder{host: h, plan: h.plan, names: h.names, guarded: h.guarded}).decisions(fw) {
			if reflect.DeepEqual(s.rules, before[i].rules) {
				continue
			}
			if err := h.refill(chainStep(fw, s.table, h.names.chain(s.part), s.rules)); err != nil {
				return err
			}
		}
	}
	return nil
}

// decision is a chain that depends on what Change changes.
type decision struct {
	table, part string
	rules       [][]string
}

func (b *builder) decisions(fw *firewall) []decision {
	wanted := "MARK"
	if b.plan.Intercept == InterceptTPROXY {
		wanted = "TAKE"
	}
	found := []decision{{"mangle", "PRE", b.clientRules(fw.family, wanted)}}
	if b.plan.Local {
		found = append(found, decision{"mangle", "OUT", b.localRules(fw.family)})
	}
	if b.plan.Direct {
		found = append(found, decision{"filter", "FWD", b.forwardRules(fw.family)})
	}
	return found
}

// refill makes a chain of ours that stands anew, at once, and has keep know it so.
func (h *Host) refill(s step) error {
	if err := s.do(); err != nil {
		return fmt.Errorf("%s: %w", s.what, err)
	}
	if i := h.keptAt(s.undo); i >= 0 {
		h.kept = slices.Clone(h.kept) // keep reads the former
		h.kept[i] = s
	}
	return nil
}

// keptAt is where the step is that is undone so, -1: nowhere. The caller holds mu.
func (h *Host) keptAt(undo []entry) int {
	return slices.IndexFunc(h.kept, func(s step) bool { return reflect.DeepEqual(s.undo, undo) })
}

func (h *Host) keptNow() []step {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.kept
}

func (h *Host) planNow() Plan {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.plan
}
