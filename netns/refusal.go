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

// baseChain is a chain that packets meet at a hook. Its family is nf_tables', or the command
// of iptables-legacy.
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
		case "target": // iptables' own
			name := attributes(expr[unix.NFTA_EXPR_DATA])[unix.NFTA_TARGET_NAME]
			refuses = string(bytes.TrimRight(name, "\x00")) == "REJECT"
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

// refusers are the chains of others that may drop what hawser's own accept, which are in
// walls: those of iptables of the same kind come after hawser's.
func refusers(walls []*firewall, hook uint32, device string) (found []baseChain) {
	chains, _ := droppers(hook, device) // a kernel without nf_tables has none
	for _, c := range chains {
		if !c.ofIptables() || len(walls) > 0 && !walls[0].nft {
			found = append(found, c)
		}
	}
	for _, fw := range walls {
		name := map[uint32]string{hookInput: "INPUT", hookForward: "FORWARD"}[hook]
		if fw.nft && legacyRefuses(fw.family, name, device) {
			found = append(found, baseChain{commandOf(fw.family) + "-" + kindLegacy, "filter", name})
		}
	}
	return found
}

// legacyRefuses tells the same of a chain of iptables-legacy.
func legacyRefuses(family int, chain, device string) bool {
	if !slices.Contains(legacyTables(family), "filter") {
		return false
	}
	fw, err := openFirewall(family, kindLegacy)
	if err != nil {
		return false
	}
	save, err := fw.save()
	if err != nil || device != "" && strings.Contains(save, " "+device+" ") {
		return false
	}
	_, filter, _ := strings.Cut(save, "*filter\n")
	filter, _, _ = strings.Cut(filter, "COMMIT")
	refuses := strings.Contains(filter, ":"+chain+" DROP ")
	for line := range strings.Lines(filter) {
		if rule, ok := strings.CutPrefix(line, "-A "+chain+" "); ok && !refuses {
			refuses = strings.HasPrefix(rule, "-j DROP") || strings.HasPrefix(rule, "-j REJECT")
		}
	}
	return refuses
}

// filters looks for rules of others that hawser's iptables does not know: what hawser's
// chains accept in front of the host's own rules is dropped by these all the same.
func (c *checker) filters(p Plan) {
	var walls []*firewall
	for _, family := range spoken() {
		fw, err := openFirewall(family, "")
		if err != nil {
			return // said already
		}
		walls = append(walls, fw)
	}
	hook, device, what := refusal(p)
	for _, chain := range refusers(walls, hook, device) {
		look, of := "nft list chain "+chain.String(), "nf_tables"
		if command, ok := strings.CutSuffix(chain.family, "-"+kindLegacy); ok {
			look, of = chain.family+" -S "+chain.name, "iptables-"+kindLegacy+", which "+command+" does not show,"
		}
		c.warn("see that its rules accept what "+what+" ("+look+"); for firewalld docs/operations.md has the commands",
			"the chain %v of %s drops what its rules do not accept, whatever iptables accepts", chain, of)
	}
}
