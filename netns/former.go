package netns

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Former values of the host's settings are kept twice: in the journal, and as
// comments of rules in a chain that nothing jumps to. The chain is in the
// kernel beside what was changed: no file that is lost takes it away, and it
// goes with the network namespace, as the settings do.

// formerPart names the chain; formerTable is where it is, in IPv4.
const (
	formerTable = "filter"
	formerPart  = "WAS"
)

// noteworthy are entries that a comment can hold as it is, in 255 bytes.
// Interfaces with other names have their values in the journal alone.
var noteworthy = regexp.MustCompile(`^[A-Za-z0-9/._:@,-]{1,255}$`)

// formerNote writes a sysctl's entry as a comment: path, former value, the
// value that was set, force, guard and the guard's value.
func formerNote(e entry) (rule []string, ok bool) {
	text := strings.Join([]string{e.Path, e.Was, e.Set, strconv.FormatBool(e.Force), e.Guard, e.GuardWas}, ",")
	if e.Do != undoSysctl || strings.Count(text, ",") != 5 || !noteworthy.MatchString(text) {
		return nil, false
	}
	return []string{"-m", "comment", "--comment", text}, true
}

// parseFormer is the reverse of formerNote, for a line of iptables -S.
func parseFormer(line string) (entry, bool) {
	_, text, found := strings.Cut(strings.ReplaceAll(line, `"`, ""), "--comment ")
	f := strings.Split(strings.TrimSpace(text), ",")
	if !found || len(f) != 6 || !strings.HasPrefix(f[0], "net/") || strings.Contains(text, "..") {
		return entry{}, false
	}
	return entry{Do: undoSysctl, Path: f[0], Was: f[1], Set: f[2], Force: f[3] == "true", Guard: f[4], GuardWas: f[5]}, true
}

// noted puts the step that notes former values before the first step that
// changes one.
func (b *builder) noted() []step {
	var rules [][]string
	first := len(b.steps)
	for i, s := range b.steps {
		for _, e := range s.undo {
			if rule, ok := formerNote(e); ok {
				rules = append(rules, rule)
				first = min(first, i)
			}
		}
	}
	if len(rules) == 0 {
		return b.steps
	}
	return slices.Insert(b.steps, first, chainStep(b.families[0], formerTable, b.names.chain(formerPart), rules))
}

// noteAgain notes what a step changes that is taken while the host runs.
func (h *Host) noteAgain(s step) error {
	fw, chain := h.walls[0], h.names.chain(formerPart)
	for _, e := range s.undo {
		rule, ok := formerNote(e)
		if !ok {
			continue
		}
		made := chainStep(fw, formerTable, chain, [][]string{rule})
		var err error
		if !h.journal.holds(made.undo[0]) {
			err = h.take(made)
		} else {
			err = oneLine(fw.AppendUnique(formerTable, chain, rule...))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// formerValues is what undoes the changed settings, the newest first, as the
// chain says.
func formerValues(u *undoer, n names) ([]entry, error) {
	walls, err := u.firewalls(4)
	if err != nil {
		return nil, err
	}
	var found []entry
	for _, fw := range walls {
		former, err := fw.formerValues(n)
		found = append(found, former...)
		if err != nil {
			return found, err
		}
	}
	return found, nil
}

func (f *firewall) formerValues(n names) ([]entry, error) {
	chains, err := f.chains(formerTable)
	if err != nil || !slices.Contains(chains, n.chain(formerPart)) {
		return nil, err
	}
	lines, err := f.List(formerTable, n.chain(formerPart))
	if err != nil {
		return nil, oneLine(err)
	}
	var found []entry
	for _, line := range slices.Backward(lines) {
		if e, ok := parseFormer(line); ok {
			found = append(found, e)
		}
	}
	return found, nil
}
