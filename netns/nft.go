package netns

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// askTables sends a request to nf_tables.
func askTables(request, flags int) ([][]byte, error) {
	ask := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|request, flags)
	ask.AddData(&nl.Nfgenmsg{NfgenFamily: unix.AF_UNSPEC, Version: nl.NFNETLINK_V0})
	return ask.Execute(unix.NETLINK_NETFILTER, 0)
}

// attributes are those of an answer, or nested in one of them.
func attributes(data []byte) map[int][]byte {
	found := map[int][]byte{}
	attrs, err := nl.ParseRouteAttr(data)
	if err != nil {
		return nil
	}
	for _, a := range attrs {
		found[int(a.Attr.Type&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER))] = a.Value
	}
	return found
}

// number reads an attribute; ok is false where it is none.
func number(value []byte) (n uint32, ok bool) {
	if len(value) != 4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(value), true
}

// rulesetGeneration changes whenever somebody changes rules of nf_tables; it is 0 where
// it is not known, or where rules are kept elsewhere.
func rulesetGeneration(walls []*firewall) uint32 {
	for _, f := range walls {
		if !f.nft {
			return 0
		}
	}
	answers, err := askTables(unix.NFT_MSG_GETGEN, 0)
	if err != nil || len(answers) == 0 || len(answers[0]) < nl.SizeofNfgenmsg {
		return 0
	}
	generation, _ := number(attributes(answers[0][nl.SizeofNfgenmsg:])[unix.NFTA_GEN_ID])
	return generation
}

// chainRules are the rules of a chain as nf_tables has them; none where there is no such
// chain.
func chainRules(family uint8, table, chain string) ([][]byte, error) {
	ask := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETRULE, unix.NLM_F_DUMP)
	ask.AddData(&nl.Nfgenmsg{NfgenFamily: family, Version: nl.NFNETLINK_V0})
	ask.AddData(nl.NewRtAttr(unix.NFTA_RULE_TABLE, nl.ZeroTerminated(table)))
	ask.AddData(nl.NewRtAttr(unix.NFTA_RULE_CHAIN, nl.ZeroTerminated(chain)))
	return ask.Execute(unix.NETLINK_NETFILTER, 0)
}

// standing tells whether chains and the rules that lead to them are there for certain. It
// takes a millisecond, where iptables takes a tenth of a second and more.
func standing(family int, steps []step) bool {
	led := map[string]int{} // rules that should lead from one chain to another
	for _, s := range steps {
		e := s.undo[0]
		rules, err := chainRules(uint8(netlinkFamily(family)), e.Table, e.Chain)
		if err != nil {
			return false
		}
		if e.Do == undoChain {
			if len(rules) < s.rules || s.rules == 0 {
				return false
			}
			continue
		}
		target := e.Rule[len(e.Rule)-1]
		way := e.Table + " " + e.Chain + " " + target
		led[way]++
		leads := func(rule []byte) bool { return bytes.Contains(rule, nl.ZeroTerminated(target)) }
		if there := len(rules) - len(slices.DeleteFunc(rules, leads)); there < led[way] {
			return false
		}
	}
	return true
}

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

// droppers are the base chains that drop, at a hook, what their rules do not accept.
// What another chain has accepted is no exception.
func droppers(hook uint32) ([]baseChain, error) {
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
		if family := names[m[0]]; family != "" && based && at == hook && ok && policy == verdictDrop {
			text := func(n int) string { return string(bytes.TrimRight(a[n], "\x00")) }
			found = append(found, baseChain{family, text(unix.NFTA_CHAIN_TABLE), text(unix.NFTA_CHAIN_NAME)})
		}
	}
	return found, nil
}

// filters looks for rules of others that iptables does not know: what hawser's chains
// accept in front of the host's own rules is dropped by these all the same.
func (c *checker) filters(p Plan) {
	hook, what := uint32(hookForward), "goes to "+hubHost+" or comes from it"
	if p.Intercept == InterceptTPROXY {
		hook, what = hookInput, "clients send to servers"
	}
	found, err := droppers(hook)
	if err != nil {
		return // a kernel without nf_tables has none
	}
	for _, chain := range found {
		if !chain.ofIptables() {
			c.warn("see that its rules accept what "+what+" (nft list chain "+chain.String()+")",
				"the chain %v of nf_tables drops what its rules do not accept, whatever iptables accepts", chain)
		}
	}
}
