package dynamostore

// Waiting is how many keys somebody uses or waits for.
func (s *Store) Waiting() int {
	s.turns.mu.Lock()
	defer s.turns.mu.Unlock()
	return len(s.turns.keys)
}
