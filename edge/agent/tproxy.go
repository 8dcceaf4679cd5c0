package agent

import (
	"errors"

	"hawser/netns"
	"hawser/pkg/box"
)

// installTransparent is install without a hub. Here the sockets come first:
// packets that are led to where nobody listens are lost. What arrives before
// the workers run waits in the kernel.
func (a *agent) installTransparent() error {
	o := a.options()
	o.Sockets = netns.Loopbacks()
	var err error
	if a.workers, err = box.NewWorkers(o); err != nil {
		return err
	}
	a.plan.Sockets = a.workers.Sockets()
	if a.host, err = netns.Install(a.plan, a.log); err != nil {
		return errors.Join(err, a.workers.Discard())
	}
	return nil
}
