package service

// Guards are the states of the policies that have a guard, in the order of the configuration.
func (s *Service) Guards() []GuardState {
	var states []GuardState
	for _, info := range s.infos {
		if p, ok := s.held[info.Name].policy.(Guarded); ok {
			state := p.Guard()
			state.Policy = info.Name
			states = append(states, state)
		}
	}
	return states
}

// Shares are the states of the policies that divide a limit among tenants, in the order of the
// configuration.
func (s *Service) Shares() []ShareState {
	var states []ShareState
	for _, info := range s.infos {
		if p, ok := s.held[info.Name].policy.(Sharer); ok {
			state := p.Shares()
			state.Policy = info.Name
			states = append(states, state)
		}
	}
	return states
}
