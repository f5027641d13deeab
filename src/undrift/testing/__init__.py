"""What tests of undrift, and of adapters written elsewhere, are made of.

    store_contract   what every vector store must do; subclass it for a store of your own
    builders         entities, stamps, records and vectors, the same for the same arguments
    faults           crashes and errors at named places

Only `undrift.testing.store_contract` needs pytest.
"""
