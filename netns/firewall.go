package netns

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/coreos/go-iptables/iptables"
)

// lockWait is how long, in seconds, a command waits for the iptables lock.
const lockWait = 10

var errNoIptables = errors.New("is not installed: install the package iptables")

// firewall is the iptables of one address family in the thread's namespace.
type firewall struct {
	*iptables.IPTables
	path   string // of the command
	family int
	nft    bool // kernel side is nf_tables
}

// Kinds of iptables: a kernel keeps the rules of either by themselves, and packets meet
// both. Which one a host's iptables is its owner may change at any time
// (update-alternatives).
const (
	kindNFT    = "nft"
	kindLegacy = "legacy"
)

func (f *firewall) kind() string {
	if f.nft {
		return kindNFT
	}
	return kindLegacy
}

func commandOf(family int) string {
	if family == 6 {
		return "ip6tables"
	}
	return "iptables"
}

// openFirewall finds the iptables of a kind, "" for the host's own.
func openFirewall(family int, kind string) (*firewall, error) {
	name := commandOf(family)
	path, now, err := findIptables(name)
	if err == nil && kind != "" && now != kind {
		name += "-" + kind
		path, now, err = findIptables(name)
	}
	if err != nil {
		return nil, err
	}
	if kind != "" && now != kind {
		return nil, fmt.Errorf("%s is iptables-%s", path, now)
	}
	path = ownName(path, commandOf(family)+"-"+now)
	proto := iptables.ProtocolIPv4
	if family == 6 {
		proto = iptables.ProtocolIPv6
	}
	t, err := iptables.New(iptables.IPFamily(proto), iptables.Timeout(lockWait), iptables.Path(path))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &firewall{IPTables: t, path: path, family: family, nft: now == kindNFT}, nil
}

// findIptables finds a command, and which kind it is.
func findIptables(name string) (path, kind string, err error) {
	if path, err = exec.LookPath(name); err != nil {
		return "", "", fmt.Errorf("%s %w", name, errNoIptables)
	}
	version, err := exec.Command(path, "--version").Output()
	if err != nil {
		return "", "", fmt.Errorf("%s --version: %w", path, err)
	}
	if bytes.Contains(version, []byte("nf_tables")) {
		return path, kindNFT, nil
	}
	return path, kindLegacy, nil
}

// ownName is the command by the name that says its kind, if it has one: what the other
// leads to may be another command a moment later.
func ownName(path, name string) string {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return path
	}
	own := filepath.Join(filepath.Dir(real), name)
	if also, err := filepath.EvalSymlinks(own); err != nil || also != real {
		return path
	}
	return own
}

// reachable tells whether the table can be listed without creating it. The old
// tables come into being when they are looked at.
func (f *firewall) reachable(table string) (bool, error) {
	if f.nft {
		return true, nil
	}
	return f.inUse(table)
}

// inUse tells whether the kernel has this table in the thread's namespace.
func (f *firewall) inUse(table string) (bool, error) {
	used, _, err := f.used()
	return slices.Contains(used, table), err
}

// used lists the tables that the kernel has in the thread's namespace, and those of
// them that hold something.
func (f *firewall) used() (there, filled []string, err error) {
	if !f.nft {
		there = legacyTables(f.family)
		return there, there, nil
	}
	save, err := f.save()
	if err != nil {
		return nil, nil, err
	}
	there, filled = parseSave(save)
	return there, filled, nil
}

// legacyTables lists the tables of iptables-legacy that the kernel has in the thread's
// namespace; none where the module is not loaded.
func legacyTables(family int) []string {
	names, err := os.ReadFile("/proc/thread-self/net/" + strings.TrimSuffix(commandOf(family), "tables") + "_tables_names")
	if err != nil {
		return nil
	}
	return strings.Fields(string(names))
}

func legacyHolds(family int) bool { return len(legacyTables(family)) > 0 }

// save is what iptables-save prints, of the tables that are there: with -t it would
// print one whether it is there or not.
func (f *firewall) save() (string, error) {
	out, err := exec.Command(f.path + "-save").Output()
	if err != nil {
		return "", fmt.Errorf("%s-save: %w", f.path, err)
	}
	return string(out), nil
}

// parseSave reads the output of iptables-save: the tables in it, and those that have
// a rule, a chain or a policy. Built-in chains are in it whether they are there or not.
func parseSave(save string) (there, filled []string) {
	for line := range strings.Lines(save) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "*"); ok {
			there = append(there, name)
			continue
		}
		chain := strings.HasPrefix(line, ":") && !strings.Contains(line, " ACCEPT ")
		if chain || strings.HasPrefix(line, "-A ") {
			filled = append(filled, there[len(there)-1])
		}
	}
	return there, slices.Compact(filled)
}

// restore makes all changes of one table at once, or none of them. One process
// for a chain in place of one per rule makes start and stop several times faster.
func (f *firewall) restore(table string, lines ...string) error {
	args := []string{"--noflush"}
	if major, minor, patch := f.GetIptablesVersion(); major > 1 || minor > 6 || minor == 6 && patch >= 2 {
		args = append(args, "--wait", strconv.Itoa(lockWait)) // older ones wait for the lock always
	}
	c := exec.Command(f.path+"-restore", args...)
	c.Stdin = strings.NewReader("*" + table + "\n" + strings.Join(lines, "\n") + "\nCOMMIT\n")
	if out, err := c.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", c.Path, err, out)
	}
	return nil
}

// fill makes a chain of rules, in place of what there may be of it.
func (f *firewall) fill(table, chain string, rules [][]string) error {
	lines := []string{":" + chain + " - [0:0]"}
	for _, r := range rules {
		lines = append(lines, "-A "+chain+" "+strings.Join(r, " "))
	}
	if f.restore(table, lines...) == nil {
		return nil
	}
	// Nothing has changed. Rule by rule the error names the one that is refused.
	if err := f.ClearChain(table, chain); err != nil {
		return oneLine(err)
	}
	for _, r := range rules {
		if err := f.Append(table, chain, r...); err != nil {
			return oneLine(err)
		}
	}
	return nil
}

func (f *firewall) removeChain(table, chain string) (bool, error) {
	if there, err := f.reachable(table); err != nil || !there {
		return false, err
	}
	// It is there as a rule, so it is not looked for first: every command counts.
	if f.restore(table, "-F "+chain, "-X "+chain) == nil {
		return true, nil
	}
	there, err := f.ChainExists(table, chain)
	if err != nil || !there {
		return false, oneLine(err)
	}
	return true, oneLine(f.ClearAndDeleteChain(table, chain))
}

// removeRule deletes rule as often as it is there.
func (f *firewall) removeRule(table, chain string, rule []string) (bool, error) {
	if there, err := f.reachable(table); err != nil || !there {
		return false, err
	}
	for done := false; ; done = true {
		failed := f.Delete(table, chain, rule...)
		if failed != nil {
			if there, err := f.ChainExists(table, rule[len(rule)-1]); err != nil || !there {
				return done, oneLine(err) // a chain that is jumped to cannot be missing
			}
		}
		there, err := f.Exists(table, chain, rule...)
		switch {
		case err != nil || there && failed != nil:
			return done, oneLine(errors.Join(failed, err))
		case !there:
			return done || failed == nil, nil
		}
	}
}

// removeBuiltins takes empty built-in chains, and so their hooks, out of a
// table that did not exist before us. Only nf_tables can do it, and it refuses
// for chains that have a rule or a policy; that is no error.
func (f *firewall) removeBuiltins(table string) {
	if !f.nft {
		return
	}
	out, err := exec.Command(f.path, "--wait", strconv.Itoa(lockWait), "-t", table, "-S").Output()
	if err != nil {
		return
	}
	for _, chain := range []string{"PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"} {
		if bytes.Contains(out, []byte("-P "+chain+" ACCEPT\n")) && !bytes.Contains(out, []byte("-A "+chain+" ")) {
			_ = f.DeleteChain(table, chain)
		}
	}
}

// jumpsTo finds the rules of a chain that jump to one of ours.
func (f *firewall) jumpsTo(table, chain, target string) ([][]string, error) {
	lines, err := f.List(table, chain)
	if err != nil {
		return nil, oneLine(err)
	}
	var found [][]string
	for _, line := range lines {
		words := strings.Fields(strings.ReplaceAll(line, `"`, ""))
		if len(words) > 3 && words[0] == "-A" && words[len(words)-2] == "-j" && words[len(words)-1] == target {
			found = append(found, words[2:])
		}
	}
	return found, nil
}

// chains lists the chains of a table; none where it is not in use.
func (f *firewall) chains(table string) ([]string, error) {
	if there, err := f.reachable(table); err != nil || !there {
		return nil, err
	}
	chains, err := f.ListChains(table)
	return chains, oneLine(err)
}

// foreignChain finds a chain that a hawser of another namespace has in table.
func (f *firewall) foreignChain(table string, n names) (string, error) {
	chains, err := f.chains(table)
	if err != nil {
		return "", err
	}
	for _, c := range chains {
		if strings.HasPrefix(c, chainPrefix) && !strings.HasPrefix(c, n.chain("")) {
			return c, nil
		}
	}
	return "", nil
}

// oneLine makes one line of the error of an iptables command.
func oneLine(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s", strings.Join(strings.Fields(err.Error()), " "))
}

// chainStep makes and fills a chain of ours.
func chainStep(f *firewall, table, chain string, rules [][]string) step {
	return step{
		what:  fmt.Sprintf("IPv%d chain %s in table %s", f.family, chain, table),
		undo:  []entry{{Do: undoChain, Family: f.family, Kind: f.kind(), Table: table, Chain: chain}},
		do:    func() error { return f.fill(table, chain, rules) },
		rules: len(rules),
	}
}

// jumpStep puts a rule at the top of a chain of the host. Its last word is the
// chain of ours that it jumps to.
func jumpStep(f *firewall, table, chain string, rule []string) step {
	return step{
		what: fmt.Sprintf("IPv%d rule in %s/%s: %s", f.family, table, chain, strings.Join(rule, " ")),
		undo: []entry{{Do: undoJump, Family: f.family, Kind: f.kind(), Table: table, Chain: chain, Rule: rule}},
		do:   func() error { return oneLine(f.Insert(table, chain, 1, rule...)) },
	}
}

// tableStep remembers to clear a table away that holds nothing yet.
func tableStep(f *firewall, table string) step {
	return step{
		what: fmt.Sprintf("IPv%d table %s", f.family, table),
		undo: []entry{{Do: undoTable, Family: f.family, Kind: f.kind(), Table: table}},
		do:   func() error { return nil },
	}
}

func words(s string) []string { return strings.Fields(s) }
