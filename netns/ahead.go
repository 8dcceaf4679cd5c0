package netns

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// preferences is how many our rules have in a row, from prefSteer on.
const preferences = prefSource - prefSteer + 1

// Who adds a policy rule without a preference gets the one before the first rule that is
// there, the local table's aside. That is ours: a VPN that begins (wg-quick), or the hook of
// an interface that comes up, would take clients' connections and links past it, where those
// that came before us do not. So ours go ahead of such rules, and back when these are gone.
// Rules that have a place of their own before ours were meant to come first.

// ahead moves our rules of a family, of which rules are all that there are. It returns what
// they have overtaken, in words. The caller holds the host's mutex.
func (h *Host) ahead(family int, rules []netlink.Rule) (overtaken []string, err error) {
	if !slices.ContainsFunc(rules, func(r netlink.Rule) bool { return r.Protocol == routeTag }) {
		return nil, nil // it is not steered
	}
	first := h.first(family)
	at := map[int][]string{}
	for _, r := range rules {
		if r.Protocol != routeTag && r.Table != unix.RT_TABLE_LOCAL { // what is for this host comes first wherever that is
			at[r.Priority] = append(at[r.Priority], fmt.Sprintf("%d (%s)", r.Priority, ruleText(r)))
		}
	}
	to := first
	for ; len(at[to-1]) > 0 && to > 1; to-- {
		overtaken = append(overtaken, at[to-1]...)
	}
	switch {
	case to < first:
		to -= preferences
	case first < prefSteer && !slices.ContainsFunc(rules, func(r netlink.Rule) bool {
		return r.Protocol != routeTag && first <= r.Priority && r.Priority < prefSteer
	}):
		to = prefSteer
	default:
		return nil, nil
	}
	if to < 1 {
		return nil, fmt.Errorf("IPv%d: policy rules %s come before hawser's %d, and there is no room before them", family, strings.Join(overtaken, ", "), first)
	}
	return overtaken, h.move(family, to)
}

// move gives our rules of a family other preferences, from first on.
func (h *Host) move(family, first int) error {
	was := h.first(family)
	var old []policy
	for _, e := range h.journal.entries {
		if p := e.Policy; e.Do == undoRule && p != nil && p.Family == family && was <= p.Preference && p.Preference < was+preferences {
			old = append(old, *p)
		}
	}
	for _, p := range old {
		p.Preference += first - was
		if err := h.takeAgain(ruleStep(p)); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	if h.moved == nil {
		h.moved = map[int]int{}
	}
	h.moved[family] = first - prefSteer
	var errs []error
	gone := func(e entry) bool {
		if e.Do != undoRule || e.Policy == nil || !slices.Contains(old, *e.Policy) {
			return false
		}
		err := absentIsFine(netlink.RuleDel(e.Policy.rule()))
		errs = append(errs, err)
		return err == nil
	}
	return errors.Join(h.journal.forget(gone), errors.Join(errs...))
}

// first is the preference of our first rule of a family.
func (h *Host) first(family int) int { return prefSteer + h.moved[family] }

// stayAhead sees to it that policy rules of others do not come before ours by chance, and
// says once which do all the same. The caller holds the host's mutex.
func (k *keeper) stayAhead() error {
	h := k.host
	if h.plan.Role != RoleEdge {
		return nil
	}
	var errs []error
	before := map[string]bool{}
	for _, family := range []int{4, 6} {
		rules, err := listRules(netlinkFamily(family))
		if absentIsFine(err) != nil {
			return fmt.Errorf("list rules: %w", err)
		}
		overtaken, err := h.ahead(family, rules)
		if errs = append(errs, err); len(overtaken) > 0 && err == nil {
			h.log.Warn("policy rules of another program came before hawser's: hawser's are first again",
				"family", fmt.Sprintf("IPv%d", family), "others", strings.Join(overtaken, ", "), "hawser", h.first(family))
		}
		for _, r := range rules {
			if takesSteered(r, h.plan, h.first(family)) {
				what := fmt.Sprintf("IPv%d: %d (%s)", family, r.Priority, ruleText(r))
				if before[what] = true; !k.before[what] {
					h.log.Warn("a policy rule comes before hawser's: what it leads elsewhere is not carried", "rule", what, "hawser", h.first(family))
				}
			}
		}
	}
	k.before = before
	return errors.Join(errs...)
}
