package admission

import "github.com/throttlekit/throttlekit-go/concurrency"

// Fleet makes the axis of concurrency of a guard that shares its limit with a fleet.
func Fleet(guard *concurrency.FleetGuard) Guard { return fleet{guard} }

type fleet struct{ *concurrency.FleetGuard }

// Stats implements [Guard]: those of this node.
func (f fleet) Stats() concurrency.Stats { return f.FleetGuard.Stats().Stats }
