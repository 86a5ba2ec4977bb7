---------------------- MODULE GaleWindowCoupledLeasing ----------------------
(* As DistributedLeasing, but credits expire when the shared window rolls.   *)
(* Then no window admits more than its limit, for any number of nodes.       *)
(* Statement and proof: docs/proofs.md, "Window-coupled".                    *)
EXTENDS Integers

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

TypeOK ==
    /\ shared \in 0..Limit
    /\ credits \in [Nodes -> 0..(Batch - 1)]
    /\ admitted \in 0..Limit

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
    /\ credits' = [n \in Nodes |-> 0]
    /\ admitted' = 0

Next == \E n \in Nodes : Serve(n) \/ Lease(n) \/ Roll

Spec == Init /\ [][Next]_vars

Overshoot == admitted <= Limit

\* False on purpose: a checker must find the state in which the bound is reached.
NotReached == admitted <= Limit - 1
=============================================================================
