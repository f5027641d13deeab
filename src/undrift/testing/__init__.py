"""What tests of undrift, and of adapters written elsewhere, are made of.

    store_contract      what every vector store promises; subclass it for a store of your own
    state_contract      what every state promises
    embedder_contract   what every embedder promises
    builders            entities, stamps, records and vectors, the same for the same arguments
    faults              crashes and errors at named places
    faulty_store        a store in memory that delays, drops, doubles and reorders, in each class
    store_process       another process that writes to a store, and can be killed

Only the contracts need pytest.
"""
