------------------------- MODULE DistributedLeasing -------------------------
(* Nodes serve requests from credits that they lease in batches from one     *)
(* shared fixed window. Credits that are left when the window rolls carry    *)
(* over. Each request costs 1; a lease is debited, received and first used   *)
(* in one step. Statement and proof: docs/proofs.md, "Carryover".            *)
EXTENDS Integers, FiniteSets

CONSTANTS
    Nodes,      \* the nodes; not empty
    Limit,      \* units that one window admits
    Batch,      \* units in one lease
    Partial     \* whether a lease takes what is left where that is less than Batch

VARIABLES
    shared,     \* units left in the shared window
    credits,    \* units that each node holds
    admitted    \* requests served since the window rolled

vars == <<shared, credits, admitted>>

ASSUME Nodes # {} /\ Limit \in Nat /\ Batch \in Nat /\ Batch >= 1 /\ Partial \in BOOLEAN

Bound == Limit + Cardinality(Nodes) * (Batch - 1)

TypeOK ==
    /\ shared \in 0..Limit
    /\ credits \in [Nodes -> 0..(Batch - 1)]
    /\ admitted \in 0..Bound

Init ==
    /\ shared = Limit
    /\ credits = [n \in Nodes |-> 0]
    /\ admitted = 0

Serve(n) ==
    /\ credits[n] >= 1
    /\ credits' = [credits EXCEPT ![n] = @ - 1]
    /\ admitted' = admitted + 1
    /\ UNCHANGED shared

Lease(n) ==
    /\ credits[n] = 0
    /\ shared >= (IF Partial THEN 1 ELSE Batch)
    /\ LET granted == IF shared < Batch THEN shared ELSE Batch IN
        /\ shared' = shared - granted
        /\ credits' = [credits EXCEPT ![n] = granted - 1]
    /\ admitted' = admitted + 1

Roll ==
    /\ shared' = Limit
    /\ admitted' = 0
    /\ UNCHANGED credits

Next == \E n \in Nodes : Serve(n) \/ Lease(n) \/ Roll

Spec == Init /\ [][Next]_vars

Overshoot == admitted <= Bound

\* False on purpose: a checker must find the state in which the bound is reached.
NotReached == admitted <= Bound - 1
=============================================================================
