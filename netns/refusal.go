package netns

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Hooks and verdicts of netfilter, and its family of both IP versions.
const (
	hookInput   = 1
	hookForward = 2
	verdictDrop = 0
	familyInet  = 1
)

// baseChain is a chain of nf_tables that packets meet at a hook.
type baseChain struct{ family, table, name string }

func (c baseChain) String() string { return c.family + " " + c.table + " " + c.name }

// ofIptables tells whether iptables keeps its rules there.
func (c baseChain) ofIptables() bool {
	return c.family != "inet" && c.table == "filter" && c.name == strings.ToUpper(c.name)
}

// droppers are the base chains that drop, at a hook, what their rules do not accept: by
// policy, or by a last rule that takes everything, as firewalld's. What another chain has
// accepted is no exception. It leaves out those in whose table a rule names a device, ""
// for none: whoever wrote that has thought of it.
func droppers(hook uint32, device string) ([]baseChain, error) {
	names := map[byte]string{unix.AF_INET: "ip", unix.AF_INET6: "ip6", familyInet: "inet"}
	answers, err := askTables(unix.NFT_MSG_GETCHAIN, unix.NLM_F_DUMP)
	if err != nil {
		return nil, fmt.Errorf("chains of nf_tables: %w", err)
	}
	var found []baseChain
	for _, m := range answers {
		if len(m) < nl.SizeofNfgenmsg {
			continue
		}
		a := attributes(m[nl.SizeofNfgenmsg:])
		at, based := number(attributes(a[unix.NFTA_CHAIN_HOOK])[unix.NFTA_HOOK_HOOKNUM])
		policy, ok := number(a[unix.NFTA_CHAIN_POLICY])
		family := names[m[0]]
		if family == "" || !based || at != hook {
			continue
		}
		text := func(n int) string { return string(bytes.TrimRight(a[n], "\x00")) }
		chain := baseChain{family, text(unix.NFTA_CHAIN_TABLE), text(unix.NFTA_CHAIN_NAME)}
		if drops := ok && policy == verdictDrop; drops || refusesRest(m[0], chain) {
			if device == "" || !naming(m[0], chain.table, device) {
				found = append(found, chain)
			}
		}
	}
	return found, nil
}

// refusesRest tells whether the last rule of a chain drops or rejects whatever comes to it.
func refusesRest(family uint8, chain baseChain) bool {
	rules, err := chainRules(family, chain.table, chain.name)
	if err != nil || len(rules) == 0 || len(rules[len(rules)-1]) < nl.SizeofNfgenmsg {
		return false
	}
	last := attributes(rules[len(rules)-1][nl.SizeofNfgenmsg:])
	parts, err := nl.ParseRouteAttr(last[unix.NFTA_RULE_EXPRESSIONS])
	if err != nil {
		return false
	}
	refuses := false
	for _, part := range parts {
		expr := attributes(part.Value)
		switch string(bytes.TrimRight(expr[unix.NFTA_EXPR_NAME], "\x00")) {
		case "counter", "log":
		case "reject":
			refuses = true
		case "immediate":
			verdict := attributes(attributes(attributes(expr[unix.NFTA_EXPR_DATA])[unix.NFTA_IMMEDIATE_DATA])[unix.NFTA_DATA_VERDICT])
			code, ok := number(verdict[unix.NFTA_VERDICT_CODE])
			refuses = ok && code == verdictDrop
		default: // a match, a limit: not everything
			return false
		}
	}
	return refuses
}

// naming tells whether a rule of a table compares an interface's name with device, or a set
// in it holds that.
func naming(family uint8, table, device string) bool {
	name := nl.ZeroTerminated(device)
	names := func(answer []byte) bool { return bytes.Contains(answer, name) }
	rules, err := chainRules(family, table, "")
	if err == nil && slices.ContainsFunc(rules, names) {
		return true
	}
	sets, err := askTable(unix.NFT_MSG_GETSET, family, table, "")
	if err != nil {
		return false
	}
	for _, m := range sets {
		if len(m) < nl.SizeofNfgenmsg {
			continue
		}
		a := attributes(m[nl.SizeofNfgenmsg:])
		if size, ok := number(a[unix.NFTA_SET_KEY_LEN]); !ok || size < unix.IFNAMSIZ {
			continue // of no names
		}
		set := string(bytes.TrimRight(a[unix.NFTA_SET_NAME], "\x00"))
		elements, err := askTable(unix.NFT_MSG_GETSETELEM, family, table, set)
		if err == nil && slices.ContainsFunc(elements, names) {
			return true
		}
	}
	return false
}

// refusal is the hook where others' chains may drop what hawser's own accept, the interface
// whose name their rules have if somebody has seen to it, and what has to pass.
func refusal(p Plan) (hook uint32, device, what string) {
	if p.Intercept == InterceptTPROXY {
		return hookInput, "", "clients send to servers"
	}
	return hookForward, hubHost, "goes to " + hubHost + " or comes from it"
}

// filters looks for rules of others that iptables does not know: what hawser's chains
// accept in front of the host's own rules is dropped by these all the same.
func (c *checker) filters(p Plan) {
	hook, device, what := refusal(p)
	found, err := droppers(hook, device)
	if err != nil {
		return // a kernel without nf_tables has none
	}
	for _, chain := range found {
		if !chain.ofIptables() {
			c.warn("see that its rules accept what "+what+" (nft list chain "+chain.String()+"); for firewalld docs/operations.md has the commands",
				"the chain %v of nf_tables drops what its rules do not accept, whatever iptables accepts", chain)
		}
	}
}
