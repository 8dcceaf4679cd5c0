package netns

import (
	"errors"
	"os"
	"path"
	"slices"
)

// sysctls puts back settings that somebody has changed, for instance by applying the files
// of /etc/sysctl.d again. With a strict check of reverse paths (rp_filter 1) all links but
// one are dead and clients have no answer from hub0; and clients' interfaces may have ceased
// to forward. The caller holds the host's mutex.
func (k *keeper) sysctls() (done []string, err error) {
	h := k.host
	names, err := h.settled()
	errs := []error{err}
	tell := func(what string, err error) {
		if errs = append(errs, err); err == nil {
			done = append(done, what)
		}
	}
	for _, name := range names {
		if slices.ContainsFunc(h.plan.Links, func(l LinkRoute) bool { return l.Interface == name }) {
			if s, needed, err := looseStep(name); err == nil && needed {
				tell(s.what, h.takeAgain(s))
			}
		}
		if h.plan.forwards(name) && ceased(name) {
			if err := h.forwardAgain(name); err != nil || !ceased(name) { // else there are too many
				tell("forwarding of "+name, err)
			}
		}
	}
	more, err := h.hubSettings()
	errs, done = append(errs, err), append(done, more...)
	for _, e := range h.journal.entries {
		if e.Do != undoSysctl || e.Force || e.Guard != "" || path.Base(e.Path) == "rp_filter" {
			continue
		}
		if now, err := readSysctl(e.Path); err == nil && now == e.Was && now != e.Set {
			tell("sysctl "+e.Path+" = "+e.Set, writeSysctl(e.Path, e.Set))
		}
	}
	return done, errors.Join(errs...)
}

// ceased tells whether an interface forwards no IPv4.
func ceased(device string) bool {
	on, err := readSysctl(confPath(4, device, "forwarding"))
	return err == nil && on == "0"
}

// hubSettings are those of hub0 without which nothing passes.
func (h *Host) hubSettings() (done []string, err error) {
	if h.plan.Intercept == InterceptTPROXY {
		return nil, nil
	}
	loose, needed, err := looseStep(hubHost)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil // somebody has removed hub0: not a matter of settings
	}
	if err != nil {
		return nil, err
	}
	// hub0 goes with the agent: nothing is noted.
	if needed {
		if err := loose.do(); err != nil {
			return nil, err
		}
		done = append(done, loose.what)
	}
	if ceased(hubHost) {
		if err := writeSysctl(confPath(4, hubHost, "forwarding"), "1"); err != nil {
			return done, err
		}
		done = append(done, "forwarding of "+hubHost)
	}
	return done, nil
}
